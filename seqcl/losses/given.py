"""Refuse numbers and shapes that no loss has a formula for; no rows cost nothing."""

from __future__ import annotations

from torch import Tensor

from seqcl.errors import UserError, not_negative, positive


def check_above_zero(name: str, **values: float | Tensor) -> None:
    """Refuse numbers that are not above 0; tensors are taken as they are, as to look at them would wait for the device.

    Raises:
        UserError: names the loss and the option.
    """
    positive(name, **{key: value for key, value in values.items() if not isinstance(value, Tensor)})


def check_share(name: str, **values: float) -> None:
    """Refuse numbers outside 0 to 1.

    Raises:
        UserError: names the loss or objective and the option.
    """
    for key, value in values.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name}: {key} must be from 0 to 1, not {value}")


def check_negatives(name: str, *, hardness: float, prior: float) -> None:
    """Refuse a hardness below 0 and a prior outside 0 to below 1.

    Raises:
        UserError: names the loss or objective and the option.
    """
    not_negative(name, hardness=hardness)
    if not 0 <= prior < 1:
        raise UserError(f"{name}: prior must be from 0 to below 1, not {prior}")


def check_positions(name: str, states: Tensor, targets: Tensor, negatives: Tensor | None = None) -> None:
    """Refuse targets other than one of each state, and negatives that are none or of other positions.

    Args:
        name: of the loss.
        states: (T, D).
        targets: (T,).
        negatives: (K,) or (T, K).

    Raises:
        UserError: names the loss and the shapes.
    """
    if targets.shape != states.shape[:1]:
        raise UserError(f"{name}: every state has one target, and they have {shapes(states, targets)}")
    if negatives is None:
        return
    if not negatives.dim() or not negatives.shape[-1]:
        raise UserError(f"{name}: negatives must be 1 or more, (K,) or (T, K), not {shapes(negatives)}")
    if negatives.dim() != 1 and negatives.shape[:-1] != targets.shape:
        raise UserError(f"{name}: every state has its negatives, and they have {shapes(states, negatives)}")


def check_partners(name: str, first: Tensor, second: Tensor, *, least: int = 0) -> None:
    """Refuse two views of different shapes, or of fewer rows than that.

    Raises:
        UserError: names the loss and the shapes.
    """
    if first.shape != second.shape:
        raise UserError(f"{name}: both must have one shape, not {shapes(first, second)}")
    if len(first) < least:
        raise UserError(f"{name}: needs {least} rows or more, as one has no deviation, not {len(first)}")


def shapes(*tensors: Tensor) -> str:
    """The shapes, as an error tells them."""
    return " and ".join(str(tuple(one.shape)) for one in tensors)


def mean(values: Tensor) -> Tensor:
    """The mean of all values; 0 if there is none."""
    return values.mean() if values.numel() else values.sum()
