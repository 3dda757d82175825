"""Time to augment one batch of 256 rows over time to encode it, and time of the item correlation.

    python benchmarks/augment_speed.py [--data Beauty.txt] [--threads 2]

Rows have the lengths of Amazon Beauty's training rows, or those of `--data`, a file in the S3-Rec text format. Their
items are drawn uniformly. `mixed` batches hold rows of all lengths, one of them 50. `bucketed` batches hold rows of
similar length, as the loader makes them. `pair` makes, and encodes, both views of a bucketed batch in one pass.
Each row draws one of crop 0.6, mask 0.3, reorder 0.6. Encoding is the forward pass of SASRec (dim 64, 2 layers, 2
heads) alone, without the backward pass of training. The two take turns, each batch in many rounds. A figure is the
median over batches of the quickest round. With one thread it is processor time, which other work on the machine
disturbs least; with more it is wall time. The last line is JSON; `ratio` is that of mixed batches: the bar is 0.1, the
aim 0.03.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from seqcl.augment import Crop, Mask, OneOf, Pair, Reorder, item_cf_iuf
from seqcl.encoders import SASRec
from seqcl.types import PAD, SeqBatch

NUM_ITEMS, MAX_LEN, BATCH = 12_101, 50, 256
BEAUTY_LENGTHS = [3] * 7 + [4] * 4 + [5, 5, 6, 6, 7, 8, 10, 12, 19, 50]  # every fifth percentile


def batch_of(lengths: torch.Tensor) -> SeqBatch:
    items = torch.randint(1, NUM_ITEMS + 1, (len(lengths), int(lengths.max())))
    return SeqBatch(items.masked_fill(torch.arange(items.shape[1]) >= lengths[:, None], PAD), lengths)


def typical(batches: list[SeqBatch], *calls: Callable[[SeqBatch], object], seconds: float) -> list[float]:
    """Measure the seconds of each call: the median over batches of the quickest round, with the calls in turns."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    quickest = [[float("inf")] * len(batches) for _ in calls]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for row, batch in enumerate(batches):
            for call, best in zip(calls, quickest, strict=True):
                began = clock()
                call(batch)
                best[row] = min(best[row], clock() - began)
    return [statistics.median(best) for best in quickest]


def correlation_seconds(users: np.ndarray, items: np.ndarray, copies: int) -> float:
    """Measure the seconds of item_cf_iuf on this many disjoint copies of a log."""
    users = np.concatenate([users + copy * (users.max() + 1) for copy in range(copies)])
    items = np.concatenate([items + copy * items.max() for copy in range(copies)])
    began = time.perf_counter()
    item_cf_iuf(users, items, int(items.max()), top_k=10)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="log in the S3-Rec text format; also times its item correlation")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10, help="time spent on each kind of batch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    result: dict[str, float | str] = {
        "benchmark": "augment_speed",
        "threads": arguments.threads,
        "torch": torch.__version__,
    }

    lengths = torch.tensor(BEAUTY_LENGTHS).repeat(1000)
    if arguments.data:
        rows = [np.array(line.split()[1:-2], dtype=np.int64) for line in arguments.data.read_text().splitlines()]
        users, items = np.repeat(np.arange(len(rows)), [len(row) for row in rows]), np.concatenate(rows)
        lengths = torch.tensor([min(len(row), MAX_LEN) for row in rows if len(row)])
        result["item_cf_iuf_seconds"] = round(correlation_seconds(users, items, 1), 2)
        result["item_cf_iuf_seconds_10x"] = round(correlation_seconds(users, items, 10), 2)

    shuffled, ascending = lengths[torch.randperm(len(lengths))], lengths.sort().values
    longest = torch.tensor([MAX_LEN])
    mixed = [batch_of(torch.cat((part[1:], longest))) for part in shuffled.split(BATCH)[:-1]]
    bucketed = [batch_of(part) for part in ascending.split(BATCH)[:-1]]
    views = [Crop(rate=0.6), Mask(rate=0.3), Reorder(rate=0.6)]
    one_of = OneOf(views=views).bind(num_items=NUM_ITEMS, max_len=MAX_LEN)
    pair = Pair(views=views).bind(num_items=NUM_ITEMS, max_len=MAX_LEN)
    encoder = SASRec(num_items=NUM_ITEMS, max_len=MAX_LEN, dim=64, layers=2, heads=2).eval()
    generator = torch.Generator().manual_seed(0)

    def twice(batch: SeqBatch) -> SeqBatch:
        return SeqBatch(batch.items.repeat(2, 1), batch.lengths.repeat(2))

    doubled = {id(batch): twice(batch) for batch in bucketed}
    kinds: dict[str, tuple[list[SeqBatch], Callable[[SeqBatch], object], Callable[[SeqBatch], object]]] = {
        "": (mixed[:20], lambda batch: one_of(batch, generator), encoder),
        "_bucketed": (bucketed[::4], lambda batch: one_of(batch, generator), encoder),
        "_pair": (
            bucketed[::4],
            lambda batch: pair.stacked(batch, generator),
            lambda batch: encoder(doubled[id(batch)]),
        ),
    }
    with torch.no_grad():
        for kind, (batches, augment, encode) in kinds.items():
            augmenting, encoding = typical(batches, augment, encode, seconds=arguments.seconds)
            result[f"ratio{kind}"] = round(augmenting / encoding, 4)
            result[f"augment_us{kind}"] = round(augmenting * 1e6)
            result[f"encode_us{kind}"] = round(encoding * 1e6)
            print(f"{kind or 'mixed':10s} augment {augmenting * 1e3:.2f} ms, encode {encoding * 1e3:.2f} ms")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
