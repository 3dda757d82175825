"""Ranks made anew, row by row: the target among all items but those that its user had before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from seqcl.config import Model
from seqcl.data import Split
from seqcl.evaluation import Evaluator
from seqcl.experiment.audit.plain import Plain, Target
from seqcl.experiment.audit.verdict import Broken, Unused
from seqcl.experiment.ranking import windows_of
from seqcl.models import Baseline
from seqcl.types import PAD, SeqBatch

ROUNDING = 1e-5
"""Part of the largest score by which a score may differ, as a sum in another order has other last bits."""

ELSEWHERE = 1e-4
"""The same on another device than that of the run."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Bounds:
    """The best and the worst rank that a target can have, if scores are true up to rounding: (W,) each."""

    low: np.ndarray
    high: np.ndarray


def negatives_of(plain: Plain, split: Split, part: str, evaluator: Evaluator) -> np.ndarray | None:
    """The sampled candidates that follow from training counts: (W, n) columns; None where all items are candidates."""
    if evaluator.candidates == "full":
        return None
    return evaluator.negatives(windows_of(split, part), plain.counted())


@torch.no_grad()
def ranks_of(
    model: Model,
    plain: Plain,
    targets: Sequence[Target],
    evaluator: Evaluator,
    device: torch.device,
    negatives: np.ndarray | None,
    rounding: float = ROUNDING,
) -> Bounds:
    """Rank targets one by one.

    Args:
        model: with the weights that were kept.
        plain: histories.
        targets: what is ranked.
        evaluator: whether seen items are candidates, and the lengths of lists.
        device: where the model is.
        negatives: sampled candidates, (W, n) columns; None for all items.
        rounding: part of the largest score by which a score may differ.
    """
    low, high = np.zeros(len(targets), np.int64), np.zeros(len(targets), np.int64)
    counted = isinstance(model, Baseline)
    for first in range(0, len(targets), evaluator.batch_size):
        some = targets[first : first + evaluator.batch_size]
        scores = model.scores(batch_of(plain, some, device)).double().cpu().numpy()  # (B, N)
        for row, one in enumerate(some):
            own, seen = plain.target(one) - 1, {item - 1 for item in plain.history(one)}
            if negatives is None:
                allowed = np.ones(plain.num_items, bool)
                if evaluator.exclude_seen:
                    allowed[list(seen)] = False
                others = scores[row, allowed]
            else:
                others = scores[row, [own, *negatives[first + row].tolist()]]
                allowed = np.ones(plain.num_items, bool)
            if not allowed[own] or scores[row, own] == -np.inf:  # no list can hold it
                low[first + row] = high[first + row] = max(plain.num_items, max(evaluator.ks) + 1)
                continue
            slack = rounding * float(np.abs(others[np.isfinite(others)]).max())
            equal = (others == scores[row, own]).sum() if counted else 1  # of a counted model, ties are no rounding
            low[first + row] = equal + (others > scores[row, own] + slack).sum()
            high[first + row] = (others >= scores[row, own] - slack).sum()
    return Bounds(low=low, high=high)


def batch_of(plain: Plain, targets: Sequence[Target], device: torch.device) -> SeqBatch:
    """The newest items before some targets, as a batch."""
    rows = [plain.history(one)[-plain.max_len :] for one in targets]
    longest = max(map(len, rows))
    return SeqBatch(
        torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows], device=device),
        torch.tensor([len(row) for row in rows], device=device),
        users=torch.tensor([one.user for one in targets], device=device),
    )


def check_ranks(bounds: Bounds, ranks: np.ndarray, evaluator: Evaluator) -> str:
    """Compare the kept test ranks with those made anew."""
    if len(ranks) != len(bounds.low):
        raise Broken(f"ranks.parquet has {len(ranks):,} ranks for {len(bounds.low):,} test targets")
    wrong = np.flatnonzero((ranks < bounds.low) | (ranks > bounds.high))
    if len(wrong):
        first = int(wrong[0])
        raise Broken(
            f"{len(wrong):,} of {len(ranks):,} test ranks are others: row {first} has rank {ranks[first]}; "
            f"among all items that its user {'had not before' if evaluator.exclude_seen else 'may get'} it has {bounds.high[first]}"
        )
    among = "among all items" if evaluator.candidates == "full" else f"among {evaluator.sampled} sampled ones"
    return f"{len(ranks):,} test ranks of the kept weights, {among}, {'without' if evaluator.exclude_seen else 'with'} those that the user had before"


def check_kept_targets(plain: Plain, users: np.ndarray, items: np.ndarray, ids: tuple[np.ndarray, np.ndarray]) -> str:
    """Compare users and targets in ranks.parquet with the test targets.

    Args:
        plain: the split.
        users, items: raw ids in ranks.parquet.
        ids: raw ids of the users and of the items of the log.
    """
    user_ids, item_ids = (raw.tolist() for raw in ids)
    expected = [(user_ids[one.user], item_ids[plain.target(one) - 1]) for one in plain.test]
    if list(zip(users.tolist(), items.tolist(), strict=True)) != expected:
        raise Broken("ranks.parquet has other users or targets than the test of the protocol")
    return f"the {len(expected):,} users and targets in ranks.parquet are the test of the protocol"


def check_candidates(plain: Plain, drawn: np.ndarray | None, evaluator: Evaluator) -> str:
    """Find no target, and no item that its user had before, among the sampled candidates; popular ones by training counts."""
    if drawn is None:
        raise Unused("all items are candidates")
    for row, one in enumerate(plain.test):
        barred = {plain.target(one), *(plain.history(one) if evaluator.exclude_seen else ())}
        columns = drawn[row].tolist()
        if len(set(columns)) < len(columns) or not barred.isdisjoint(column + 1 for column in columns):
            raise Broken(f"the candidates of test row {row} hold its target, an item of its history, or one item twice")
        if evaluator.candidates == "popularity" and not all(plain.counts[column + 1] for column in columns):
            raise Broken(f"the candidates of test row {row} hold an item that training never met")
    return f"{drawn.size:,} candidates, drawn anew {'by training counts' if evaluator.candidates == 'popularity' else 'uniformly'}"
