"""The conformance check of next-item losses."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck

POSITIONS, WIDTH, ITEMS, DRAWN = 6, 4, 9, 5
"""T, D, N and K of the tensors that a loss is tried on."""


def check_loss(loss: Callable[..., Tensor]) -> None:
    """Check a next-item loss `loss(queries, candidates, targets)` or `loss(queries, candidates, targets, negatives)`.

    Queries are (T, D), candidates (N, D), targets (T,) rows of the candidates; negatives are (K,), shared by all
    positions, or (T, K) rows of the candidates. Other parameters must have defaults.

    Raises:
        AssertionError: names the rule that is broken.
    """
    draws = Generator().manual_seed(0)
    targets = torch.randint(ITEMS, (POSITIONS,), generator=draws)
    choices: list[tuple[Tensor, ...]] = [()]
    if "negatives" in inspect.signature(loss).parameters:
        choices = [(torch.randint(ITEMS, shape, generator=draws),) for shape in ((DRAWN,), (POSITIONS, DRAWN))]
        check_hits(loss, targets)
    for negatives in choices:
        check_value(loss, targets, negatives)
        check_gradients(loss, targets, negatives)
        check_order(loss, targets, negatives)
        check_mean(loss, targets, negatives)
        check_direction(loss, targets, negatives)
        check_range(loss, targets, negatives)


def operands(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Make random queries (T, D) and candidates (N, D) that want gradients."""
    draws = Generator().manual_seed(1)
    shapes = ((POSITIONS, WIDTH), (ITEMS, WIDTH))
    queries, candidates = (torch.randn(shape, generator=draws, dtype=torch.float64) for shape in shapes)
    return queries.to(dtype).requires_grad_(), candidates.to(dtype).requires_grad_()


def check_value(loss: Callable[..., Tensor], targets: Tensor, negatives: tuple[Tensor, ...]) -> None:
    """Check that the loss is a finite scalar, also of one position, and leaves what it is given as it was."""
    for count in (POSITIONS, 1):
        queries, candidates = operands()
        some = tuple(drawn if drawn.dim() == 1 else drawn[:count] for drawn in negatives)
        before = [part.detach().clone() for part in (queries, candidates, targets, *some)]
        value = loss(queries[:count], candidates, targets[:count], *some)
        assert value.shape == (), f"a loss must be a scalar, not {tuple(value.shape)}"
        assert bool(value.isfinite()), f"the loss of {count} positions must be finite, not {value.item()}"
        for old, new in zip(before, (queries, candidates, targets, *some), strict=True):
            assert torch.equal(old, new), "the loss writes into a tensor that it is given"


def check_gradients(loss: Callable[..., Tensor], targets: Tensor, negatives: tuple[Tensor, ...]) -> None:
    """Check that gradients reach queries and candidates, and that they are those of the value."""
    queries, candidates = operands()
    value = loss(queries, candidates, targets, *negatives)
    assert value.requires_grad, "the loss has no gradient"
    found = torch.autograd.grad(value, (queries, candidates), allow_unused=True)
    for name, gradient in zip(("queries", "candidates"), found, strict=True):
        assert gradient is not None and bool((gradient != 0).any()), f"no gradient reaches the {name}"

    def of(*given: Tensor) -> Tensor:
        return loss(*given, targets, *negatives)

    try:
        gradcheck(of, (queries, candidates))
    except GradcheckError as error:
        raise AssertionError(f"the gradient is not that of the value (float64): {error}") from error


def check_order(loss: Callable[..., Tensor], targets: Tensor, negatives: tuple[Tensor, ...]) -> None:
    """Check that the order of the positions does not matter."""
    queries, candidates = operands()
    order = torch.randperm(POSITIONS, generator=Generator().manual_seed(2))
    moved = tuple(drawn if drawn.dim() == 1 else drawn[order] for drawn in negatives)
    first = loss(queries, candidates, targets, *negatives)
    second = loss(queries[order], candidates, targets[order], *moved)
    close = torch.isclose(first, second, rtol=1e-9, atol=1e-12)
    assert bool(close), f"the order of the positions must not matter: {first.item()} became {second.item()}"


def check_mean(loss: Callable[..., Tensor], targets: Tensor, negatives: tuple[Tensor, ...]) -> None:
    """Check that the loss is a mean over the positions: the same positions twice have the same one."""
    queries, candidates = operands()
    twice = tuple(drawn if drawn.dim() == 1 else drawn.repeat(2, 1) for drawn in negatives)
    once = loss(queries, candidates, targets, *negatives)
    both = loss(queries.repeat(2, 1), candidates, targets.repeat(2), *twice)
    close = torch.isclose(once, both, rtol=1e-9, atol=1e-12)
    assert bool(close), f"a loss is the mean over positions: {once.item()} became {both.item()} of the same ones twice"


def check_direction(loss: Callable[..., Tensor], targets: Tensor, negatives: tuple[Tensor, ...]) -> None:
    """Check that the loss does not rise with the scores of the targets, and falls with them together."""
    candidates = torch.eye(ITEMS, dtype=torch.float64)  # a query is then the list of its scores
    scores = torch.randn(POSITIONS, ITEMS, generator=Generator().manual_seed(3), dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(scores, candidates, targets, *negatives), scores)
    own = gradient.gather(1, targets[:, None])  # (T, 1)
    assert bool((own <= 1e-12).all()), "the loss must not rise with the score of a target"
    assert bool((own < 0).any()), "the loss must fall as the scores of the targets rise"


def check_hits(loss: Callable[..., Tensor], targets: Tensor) -> None:
    """Check that a negative which is the target of its position pushes nothing away."""
    candidates = torch.eye(ITEMS, dtype=torch.float64)
    scores = torch.zeros(POSITIONS, ITEMS, dtype=torch.float64).requires_grad_()
    value = loss(scores, candidates, targets, targets[:, None].expand(-1, DRAWN))
    assert bool(value.isfinite()), f"the loss must be finite where all negatives are targets, not {value.item()}"
    (gradient,) = torch.autograd.grad(value, scores)
    own = gradient.gather(1, targets[:, None])
    assert bool((own <= 1e-12).all()), "a negative that is the target of its position must be left out"


def check_range(loss: Callable[..., Tensor], targets: Tensor, negatives: tuple[Tensor, ...]) -> None:
    """Check that the loss stays finite under bfloat16 at scores as large as a temperature of 0.01 makes them."""
    _, candidates = operands(torch.float32)
    queries = (operands()[0].detach() * 100).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(queries, candidates, targets, *negatives)
    assert value.dtype == torch.float32, f"under autocast the loss must be float32, not {value.dtype}"
    assert bool(value.isfinite()), f"the loss must be finite in bfloat16 at large scores, not {value.item()}"
    for gradient in torch.autograd.grad(value, (queries, candidates)):
        assert bool(gradient.isfinite().all()), "gradients must be finite in bfloat16 at large scores"
