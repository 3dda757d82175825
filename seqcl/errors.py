"""Errors that are the user's to mend: they carry the place and the nearest valid choice, and never a traceback."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import reduce
from operator import and_
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from torch import Tensor


class UserError(ValueError):
    """A mistake in what the user gave; the command line prints it alone and exits with 2."""


class Diverged(UserError):
    """A loss, a weight or a score became NaN or infinite."""


LONGEST = 240
"""Characters of a message that lists names; the place that it is about comes before it."""

ADVICE = "A lower learning rate (train.lr; in pre-training pretrain.lr) or train.clip 1 may help"
"""The way out of a run that diverged."""


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor of fractions that holds NaN or an infinite value; None if none does."""
    fractions = ((name, one) for name, one in tensors.items() if one.is_floating_point())
    return next((name for name, one in fractions if not bool(all_finite(one))), None)


def all_finite(one: Tensor) -> Tensor:
    """True, as a tensor, if no value is NaN or infinite; in pieces, as to look at a table takes twice its memory."""
    return reduce(and_, (part.isfinite().all() for part in one.reshape(-1).split(1 << 24)))


def refuse_infinite_weights(tensors: Mapping[str, Tensor], source: object) -> None:
    """Refuse weights that nothing can be ranked with.

    Raises:
        Diverged: names the first of them and the file that they stand in.
    """
    if name := not_finite(tensors):
        raise Diverged(f"{source}: the weight {name} holds a value that is not finite: the run diverged. {ADVICE}")


def check_choice(kind: str, value: str, choices: Any) -> None:
    """Refuse a value that the `Literal` type `choices` does not have.

    Raises:
        UserError: names the nearest ones.
    """
    if value not in get_args(choices):
        raise unknown(kind, value, get_args(choices))


def positive(name: str, **values: float) -> None:
    """Refuse values that are not above 0.

    Raises:
        UserError: names the first of them.
    """
    for key, value in values.items():
        if not value > 0:  # NaN too
            raise UserError(f"{name}: {key} must be above 0, not {value}")


def not_negative(name: str, **values: float) -> None:
    """Refuse values below 0.

    Raises:
        UserError: names the first of them.
    """
    for key, value in values.items():
        if not value >= 0:
            raise UserError(f"{name}: {key} must not be negative, not {value}")


def brief(error: object, longest: int = 160) -> str:
    """Fold the message of a library into one line of at most so many characters; without a message, its type."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def lacks(folder: Path, what: str) -> str:
    """Say why a folder holds no such file: it is not there, is a file, or lacks it; near names beside it are named."""
    if folder.is_dir():
        newest = folder / "latest"
        return f"it has no {what}" + (f"; did you mean {newest}?" if newest.is_dir() else "")
    if folder.exists():
        return "it is a file"
    with suppress(OSError):
        beside = [one.name for one in folder.parent.iterdir() if one.is_dir()]
        if near := get_close_matches(folder.name, beside, n=3):
            return f"there is no such folder; did you mean {' or '.join(str(folder.with_name(one)) for one in near)}?"
    return "there is no such folder"


def unknown(kind: str, name: str, choices: Iterable[str]) -> UserError:
    """The error for a name that is not among `choices`, with the nearest ones first."""
    names = sorted(choices)
    lower = {choice.lower(): choice for choice in names}
    near = [lower[match] for match in get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(brief(one, 60) for one in near)}? " if near else ""
    text = f"unknown {kind} {brief(repr(name), 80)}: {hint}valid: "
    fitting = [brief(one, 60) for one in names]
    while len(fitting) > 1 and len(text) + len(", ".join(fitting)) > LONGEST:
        fitting.pop()
    more = f" and {len(names) - len(fitting)} more" if len(fitting) < len(names) else ""
    return UserError(f"{text}{', '.join(fitting)}{more}")
