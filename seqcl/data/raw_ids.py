"""Find raw ids, as users write them, among the sorted ids of a log or a bundle."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from seqcl.errors import UserError, brief

logger = logging.getLogger("seqcl")

SHOWN = 3
"""Unknown ids that a message names."""


def same_ids(theirs: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """The place of each raw id among our sorted ones, -1 where it is not there: (n,). The text "7" finds the integer 7.

    Args:
        theirs: (n,) int64 or text.
        ours: (N,) int64 or text, sorted.
    """
    there = np.ones(len(theirs), bool)
    if ours.dtype.kind == "i" and theirs.dtype.kind == "U":
        numbers = [int(text) if whole_number(text) else None for text in theirs.tolist()]
        there = np.array([number is not None for number in numbers], bool)
        theirs = np.array([number or 0 for number in numbers], np.int64)
    elif ours.dtype.kind == "U":
        theirs = theirs.astype(np.str_)
    place = np.searchsorted(ours, theirs).clip(max=len(ours) - 1)
    return np.where(there & (np.asarray(ours[place]) == theirs), place, -1)


def whole_number(text: str) -> bool:
    """True for a text that is an integer of 64 bits."""
    return text.removeprefix("-").isdecimal() and len(text) < 20 and abs(int(text)) < 2**63


def lines_of(text: str) -> list[str]:
    """The raw ids of a text with one a line, each once."""
    return list(dict.fromkeys(line for one in text.splitlines() if (line := one.strip("\ufeff \t"))))


def places_of(raws: Iterable[object], ours: np.ndarray) -> np.ndarray:
    """The place of each raw id, of any type, among our sorted ones, -1 where it is not there: (n,)."""
    texts = [str(raw) for raw in raws]
    if ours.dtype.kind == "i":
        texts = [text.strip() for text in texts]
    return same_ids(np.array(texts, np.str_), ours)


def known_places(raws: Sequence[object], ours: np.ndarray, kind: str, name: str) -> np.ndarray:
    """The places of the raw ids that are known, (n,); a warning counts and names the others.

    Args:
        raws: raw ids.
        ours: (N,) the known ids, sorted.
        kind: item or user, for messages.
        name: what knows them, for messages.

    Raises:
        UserError: none of them is known, or none is given.
    """
    found = places_of(raws, ours)
    check_known(found, raws, ours, kind, name)
    return found[found >= 0]


def check_known(found: np.ndarray, raws: Sequence[object], ours: np.ndarray, kind: str, name: str) -> None:
    """Name unknown ids in a warning; `found` has -1 for them.

    Raises:
        UserError: none is known, or none is given.
    """
    if not len(raws):
        raise UserError(f"no {kind} is given; those that {name} knows are such as {', '.join(map(str, ours[:3]))}")
    missed = np.flatnonzero(found < 0)
    if len(missed) == len(raws):
        what = f"none of the {len(raws)} {kind}s{such(raws, missed)}" if len(raws) != 1 else f"no {kind} {raws[0]!r}"
        raise UserError(f"{name} has {what}; ids are such as {', '.join(map(str, ours[:3]))}")
    if len(missed):
        logger.warning(
            "%s does not know %d of %d %ss, which are left out%s",
            *(name, len(missed), len(raws), kind, such(raws, missed)),
        )


def such(ids: Sequence[Any] | np.ndarray, places: np.ndarray) -> str:
    """The first of some ids, for the end of a message; nothing where there are none."""
    shown = ", ".join(brief(str(ids[place]), 40) for place in places[:SHOWN])
    return f", such as {shown}" if shown else ""
