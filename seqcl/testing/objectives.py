"""The conformance check of objectives over two views of every row."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from seqcl.augment import crop_mask_reorder
from seqcl.data import Loader
from seqcl.encoders import GRU
from seqcl.testing.batches import copied, same, training_windows
from seqcl.types import SeqBatch

ITEMS, MAX_LEN, DIM, ROWS = 30, 12, 8, 16


def check_objective(make: Callable[..., Any]) -> None:
    """Check the objective that `make(views=..., dim=...)` builds: a class, or a function that adds options.

    Raises:
        AssertionError: names the rule that is broken.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        train = training_windows(num_items=ITEMS, max_len=MAX_LEN, seed=0, times=False)
        encoder = GRU(num_items=ITEMS, max_len=MAX_LEN, dim=DIM)
        with torch.no_grad():  # as after some training: states of different rows are not alike
            encoder.item_embeddings()[1:].normal_()
        objective = make(views=crop_mask_reorder(), dim=DIM)
        objective.prepare(encoder, train)
        batches = Loader(train, batch_size=ROWS, shuffle_seed=0, bucket=False)
        objective.before_epoch(encoder, batches, epoch=0, epochs=2)
        rows = list(batches.epoch(0))[:6]
        learned: dict[str, bool] = {}
        reached = [check_terms(encoder, objective, batch, learned) for batch in rows[:3]]
        for name, does in learned.items():
            assert does, f"no parameter gets a gradient of the term {name!r}"
        assert any(reached), "no term reaches the item embeddings"  # the first batch may only fill a queue
        check_terms(encoder, objective, rows[3].each(lambda column: column[:1]), {})
        check_state(encoder, objective, rows[3:6])


def check_terms(encoder: Any, objective: Any, batch: SeqBatch, learned: dict[str, bool]) -> bool:
    """Check the terms of one batch: named finite scalars, an untouched batch; True if they reach the item embeddings.

    Args:
        encoder: the encoder.
        objective: the objective.
        batch: its rows.
        learned: of each term that some batch could give, whether a parameter got a gradient of it; added to.
    """
    before = copied(batch)
    terms = objective(encoder, batch)
    assert isinstance(terms, dict) and terms, (
        f"forward must give named losses, such as {{'contrast': loss}}, not {terms!r}"
    )
    for name, term in terms.items():
        assert isinstance(term, Tensor) and term.dim() == 0, f"the term {name!r} must be a scalar tensor"
        assert bool(term.isfinite()), f"the term {name!r} is {float(term)} for {len(batch.lengths)} rows"
    assert same(batch, before), "forward must leave its batch as it is"
    for name, flag in objective.missing.items():
        assert name in terms and flag.dim() == 0, f"missing {name!r} must be a scalar for a term"
        assert not bool(flag == 1) or float(terms[name].detach()) == 0, f"the term {name!r} is missing, so it must be 0"
    for name, value in objective.observed.items():
        assert value.dim() == 0 and not value.requires_grad, f"observed {name!r} must be a detached scalar"
    parameters = [one for one in (*encoder.parameters(), *objective.parameters()) if one.requires_grad]
    for name, term in terms.items():
        if name not in objective.missing or not bool(objective.missing[name] == 1):
            learned[name] = learned.get(name, False) or reaches(term, parameters)
    total = torch.stack(list(terms.values())).sum()
    if not total.requires_grad:
        return False
    encoder.zero_grad()
    total.backward()
    gradient = encoder.item_embeddings().grad
    assert gradient is None or bool(gradient.isfinite().all()), "a gradient of the item embeddings is not finite"
    return gradient is not None and bool(gradient.any())


def reaches(term: Tensor, parameters: list[Tensor]) -> bool:
    """True if a parameter has a part in the term, be its gradient 0 for this batch."""
    if not term.requires_grad:
        return False
    return any(one is not None for one in torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True))


def check_state(encoder: Any, objective: Any, rows: list[SeqBatch]) -> None:
    """Check that parameters and buffers hold all state: a copy that reads them goes on to the same bits."""
    step(encoder, objective, rows[0])
    other_encoder, other = deepcopy((encoder, objective))
    for module in (other_encoder, other):
        for value in module.state_dict().values():
            value.zero_()  # in place: what is not in the state stays as it was copied
    for mine, theirs in ((encoder, other_encoder), (objective, other)):
        missing = theirs.load_state_dict(mine.state_dict())
        assert not missing.missing_keys, f"state_dict lacks {missing.missing_keys}"
    found = []
    for one, two in ((encoder, objective), (other_encoder, other)):
        torch.manual_seed(1)
        for batch in rows[1:]:
            step(one, two, batch)
        found.append(dict(one.state_dict()) | {f"objective.{name}": value for name, value in two.state_dict().items()})
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), (
            f"{name} differs after a resumption: keep all state in buffers or parameters"
        )


def step(encoder: Any, objective: Any, batch: SeqBatch) -> None:
    """Take one step of gradient descent and tell the objective."""
    parameters = [one for one in (*encoder.parameters(), *objective.parameters()) if one.requires_grad]
    for parameter in parameters:
        parameter.grad = None
    torch.stack(list(objective(encoder, batch).values())).sum().backward()
    with torch.no_grad():
        for parameter in parameters:
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    objective.after_step(encoder)
