"""Errors that are the user's to mend: they carry the place and the nearest valid choice, and never a traceback."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, get_args


class UserError(ValueError):
    """A mistake in what the user gave; the command line prints it alone and exits with 2."""


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


def unknown(kind: str, name: str, choices: Iterable[str]) -> UserError:
    """The error for a name that is not among `choices`, with the nearest ones first."""
    names = sorted(choices)
    lower = {choice.lower(): choice for choice in names}
    near = [lower[match] for match in get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(cut(one) for one in near)}? " if near else ""
    return UserError(f"unknown {kind} {cut(name)!r}: {hint}valid: {listed(names)}")


def listed(names: Sequence[str], longest: int = 400) -> str:
    """Names with commas between them; of a list that would be too long, the first ones and how many there are."""
    cuts = [cut(name) for name in names]
    if len(", ".join(cuts)) <= longest:
        return ", ".join(cuts)
    shown: list[str] = []
    while sum(map(len, shown)) + 2 * len(shown) + len(cuts[len(shown)]) < longest // 2:
        shown.append(cuts[len(shown)])
    return f"{', '.join(shown)}, ... ({len(cuts):,} in all)"


def cut(text: str, longest: int = 60) -> str:
    """Text as it is, or its begin with dots."""
    return text if len(text) <= longest else f"{text[:longest]}..."
