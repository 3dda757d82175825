"""Evaluate a model on the windows of a split: ranks, metrics, and the protocol they were made under."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from seqcl import processes
from seqcl.blocks import block_rows, over_blocks
from seqcl.errors import ADVICE, Diverged, UserError, check_choice
from seqcl.evaluation.candidates import draw_negatives
from seqcl.evaluation.metrics import LIST_METRICS, METRICS, list_metrics, rank_metrics
from seqcl.evaluation.ranks import Ranked, Seen, no_hit, rank_block_, seen_before
from seqcl.evaluation.scores import ScoreBlocks, Scorer, evaluating
from seqcl.types import SeqBatch, Windows

Candidates = Literal["full", "uniform", "popularity"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """Metrics, the rank of each target in the order of the windows, and the protocol that the metrics depend on."""

    metrics: dict[str, float]
    users: np.ndarray  # (W,) int64, row of the user in the log
    targets: np.ndarray  # (W,) int64, item ids
    ranks: np.ndarray  # (W,) int64, 1 is best
    protocol: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Ranks the target of every window among all other items, or among sampled ones.

    Args:
        ks: lengths of the list at which metrics are taken, in items.
        exclude_seen: a user's earlier items score minus infinity; false leaves them as candidates.
        candidates: full (all items), or the target among sampled negatives, drawn uniform or by training popularity;
            sampled figures are easier and not comparable with full ones.
        sampled: negatives of each target, if sampled.
        batch_size: rows encoded at once.
        seed: of the sampled negatives; the same for every model, so that they are compared on the same candidates.

    Raises:
        UserError: a value out of its range, or a registered metric with the name of a metric of the lists.
    """

    ks: tuple[int, ...] = (5, 10, 20)
    exclude_seen: bool = True
    candidates: Candidates = "full"
    sampled: int = 100
    batch_size: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("value of --eval.candidates", self.candidates, Candidates)
        if not self.ks or min(self.ks) < 1:
            raise UserError(f"--eval.ks {list(self.ks)}: needs at least one k, each at least 1")
        for option, value in (("sampled", self.sampled), ("batch_size", self.batch_size)):
            if value < 1:
                raise UserError(f"--eval.{option} {value}: must be at least 1")
        for name in METRICS.others.keys() & LIST_METRICS.keys():
            raise UserError(
                f"the metric name {name!r} is taken by a metric of the lists: register yours under another name="
            )
        object.__setattr__(self, "ks", tuple(sorted(set(self.ks))))

    def __call__(
        self,
        windows: Windows,
        batches: Iterable[SeqBatch],
        scorer: Scorer,
        item_counts: np.ndarray,
        *,
        lists: bool = True,
    ) -> Result:
        """Rank the target of every window.

        Args:
            windows: one target each, items[stop].
            batches: rows of the windows in their order, with targets (B,) as item ids.
            scorer: the model; it is ranked in float32, and in evaluation mode if it is a module.
            item_counts: (N + 2,), how often each item occurs in training.
            lists: adds coverage, popularity and gini of the recommended lists; with full candidates only.

        Raises:
            Diverged: a score is NaN.
            ValueError: the batches are not those of the windows.
            UserError: there are no windows.
        """
        negatives = None if self.candidates == "full" else self.negatives(windows, item_counts)
        lists = lists and negatives is None
        with torch.inference_mode(), evaluating(scorer):
            tally = self.rank(windows, batches, scorer, negatives, lists)
        # The last rank would be a hit where k reaches it.
        found = tally.ranks.masked_fill(tally.unreachable, no_hit(windows.num_items, self.ks)).cpu().numpy()
        metrics = rank_metrics(found, self.ks)
        if lists:
            metrics |= list_metrics(tally.recommended.cumsum(0).cpu().numpy(), item_counts[1:-1], self.ks)
        return Result(
            metrics=metrics,
            users=windows.users,
            targets=windows.items[windows.stop].astype(np.int64),
            ranks=found,
            protocol=self.protocol(windows, self.unreachable(windows)),
        )

    def unreachable(self, windows: Windows) -> int:
        """Count the targets that no model can hit: seen before, where seen items are excluded from a full ranking."""
        return int(seen_before(windows).sum()) if self.exclude_seen and self.candidates == "full" else 0

    def protocol(self, windows: Windows, unreachable: int) -> dict[str, Any]:
        """The facts a figure must be quoted with; `unreachable` targets are excluded themselves, and never a hit."""
        full = self.candidates == "full"
        return {
            **base_protocol(windows, "full" if full else f"{self.candidates}-{self.sampled}", self.exclude_seen),
            "unreachable_targets": unreachable,
            **({} if full else {"candidates_seed": self.seed}),
        }

    def negatives(self, windows: Windows, item_counts: np.ndarray) -> np.ndarray:
        """The sampled columns that each target is ranked among: (W, sampled)."""
        counts = item_counts[1:-1]
        return draw_negatives(
            windows,
            self.sampled,
            weights=counts if self.candidates == "popularity" else np.ones(len(counts)),
            exclude_seen=self.exclude_seen,
            generator=np.random.default_rng(self.seed),
        )

    def rank(
        self, windows: Windows, batches: Iterable[SeqBatch], scorer: Scorer, negatives: np.ndarray | None, lists: bool
    ) -> Tally:
        """Rank every target among all items, or among its negatives if there are any."""
        rows = in_order(windows, batches)
        first = next(rows, None)
        if first is None:
            raise UserError("there is nothing to evaluate: this part of the split has no targets")
        device = first[1].items.device
        tally = Tally(windows, self.ks, device)
        seen = Seen(windows, device) if self.exclude_seen and negatives is None else None
        source = ScoreBlocks(scorer, windows.num_items)
        for start, values in source.chunks(own_part(windows, chain([first], rows))):
            stop = start + len(values)
            if negatives is None:
                targets, columns = tally.targets[start:stop], None
            else:  # the target stands first in its row
                targets = torch.zeros_like(tally.targets[start:stop])
                drawn = torch.tensor(negatives[start:stop], device=device)
                columns = torch.cat([tally.targets[start:stop, None], drawn], 1)  # (rows, 1 + n)
            # Without lists only the best score is asked for: a NaN would show there.
            found = rank_chunk(source, values, targets, columns, seen, start, k=self.ks[-1] if lists else 1)
            tally.add(start, stop, found, lists=lists)
        tally.merge()
        return finished(tally, windows)


def rank_chunk(
    source: ScoreBlocks,
    values: Tensor,
    targets: Tensor,
    columns: Tensor | None,
    seen: Seen | None,
    start: int,
    *,
    k: int,
) -> Ranked:
    """Rank the rows of a chunk block by block; `start` is the window of its first row."""
    width = min(k, source.num_items if columns is None else columns.shape[1])
    found = Ranked(
        ranks=torch.empty_like(targets),
        best=torch.empty(len(values), width, device=values.device),
        columns=targets.new_empty(len(values), width),
        unreachable=torch.empty_like(targets, dtype=torch.bool),
    )
    step = block_rows(source.num_items, values.device)

    def work(starts: Iterator[int]) -> None:
        buffer = source.buffer(min(step, len(values)), values.device) if columns is None else None
        for low in starts:
            high = min(low + step, len(values))
            scores = source.block(values[low:high], None if columns is None else columns[low:high], buffer)
            pairs = None if seen is None else seen.pairs(start + low, start + high)
            for whole, part in zip(found, rank_block_(scores, targets[low:high], pairs, k=k), strict=True):
                whole[low:high] = part

    over_blocks(work, len(values), step, values.device)
    return found


def base_protocol(windows: Windows, candidates: str, exclude_seen: bool) -> dict[str, Any]:
    """The part of a protocol that a full ranking and the lists of an index have in common."""
    return {
        "candidates": candidates,
        "exclude_seen": exclude_seen,
        "max_len": windows.max_len,
        "ties": "against",
        "num_targets": len(windows),
    }


class Tally:
    """Results of the chunks ranked so far, kept on the device so that nothing waits for it."""

    def __init__(self, windows: Windows, ks: Sequence[int], device: torch.device) -> None:
        self.ks = ks
        self.targets = torch.tensor(windows.items[windows.stop].astype(np.int64) - 1, device=device)  # (W,) columns
        self.ranks = torch.zeros(len(windows), dtype=torch.long, device=device)
        self.broken = torch.zeros(len(windows), dtype=torch.bool, device=device)
        self.unreachable = torch.zeros(len(windows), dtype=torch.bool, device=device)
        self.recommended = torch.zeros(
            len(ks), windows.num_items, dtype=torch.long, device=device
        )  # items added to the lists at each k

    def merge(self) -> None:
        """Add what the other processes ranked."""
        flags = [self.broken.int(), self.unreachable.int()]
        processes.add_up([self.ranks, self.recommended, *flags])
        self.broken, self.unreachable = (flag > 0 for flag in flags)

    def add(self, start: int, stop: int, found: Ranked, *, lists: bool) -> None:
        """Add the results of a chunk, the windows [start, stop)."""
        self.ranks[start:stop] = found.ranks
        self.broken[start:stop] = found.best[:, 0].isnan()
        self.unreachable[start:stop] = found.unreachable
        if lists:
            there = (found.best > -torch.inf).long()  # a row with few candidates left recommends fewer than k
            for row, (low, high) in zip(self.recommended, zip((0, *self.ks), self.ks, strict=False), strict=True):
                row.scatter_add_(0, found.columns[:, low:high].flatten(), there[:, low:high].flatten())


def own_part(windows: Windows, batches: Iterable[tuple[int, SeqBatch]]) -> Iterator[tuple[int, SeqBatch]]:
    """Yield the batches that this process ranks: one stretch of windows each, of as many rows as the others', to a batch."""
    rows = -(-len(windows) // processes.count())
    for start, batch in batches:
        if start // rows == processes.number():
            yield start, batch


def finished(tally: Tally, windows: Windows) -> Tally:
    """Return the tally of all chunks.

    Raises:
        Diverged: a ValueError: a score is NaN; its user is named.
    """
    if bool(tally.broken.any()):
        window = int(tally.broken.nonzero()[0])
        user = int(windows.users[window])
        raise Diverged(f"user {user} (window {window}): a score is NaN: the model has diverged. {ADVICE}")
    return tally


def in_order(windows: Windows, batches: Iterable[SeqBatch]) -> Iterator[tuple[int, SeqBatch]]:
    """Yield each batch with the window of its first row.

    Raises:
        ValueError: together the batches are not the windows in their order.
    """
    start = 0
    for batch in batches:
        stop = start + len(batch.items)
        expected = windows.items[windows.stop[start:stop]]
        if batch.targets is not None and not np.array_equal(batch.targets.cpu().numpy(), expected):
            raise ValueError(f"batches do not follow the windows: other targets in rows {start} to {stop}")
        yield start, batch
        start = stop
    if start != len(windows):
        raise ValueError(f"batches do not follow the windows: {start} rows for {len(windows)} windows")
