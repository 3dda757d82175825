"""Ranking a model on one part of a split, and the protocol that its figures must be quoted with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from seqcl.config import Model
from seqcl.data import Loader, Sequences, Split
from seqcl.errors import unknown
from seqcl.evaluation import Evaluator, Result, by_slice
from seqcl.models import Blend, Recommender
from seqcl.retrieval.promise import QUERIES
from seqcl.types import PAD, SeqBatch, Windows

Part = Literal["valid", "test"]


def windows_of(split: Split, part: str) -> Windows:
    """The evaluation windows of one part of a split.

    Raises:
        UserError: a part other than valid and test.
    """
    parts = {"valid": split.valid, "test": split.test}
    if part not in parts:
        raise unknown("part", part, parts)
    return parts[part]


def queries_of(windows: Windows, evaluator: Evaluator, device: torch.device) -> Loader:
    """Batches of evaluation windows, with the target of each."""
    return Loader(windows, batch_size=evaluator.batch_size, device=device, targets="last")


def some_queries(model: Recommender, sequences: Sequences, *, max_len: int, device: torch.device) -> Tensor:
    """Queries of whole histories of users drawn at random, who are not told, as a bundle is asked: (Q, D) float32.

    Args:
        model: the model, on the device.
        sequences: the log.
        max_len: items of a history that are read, the newest ones.
        device: where batches are made.
    """
    users = np.random.default_rng(0).permutation(sequences.num_users)[:QUERIES]
    found = []
    for part in torch.from_numpy(users).split(256):
        rows = [torch.from_numpy(sequences.row(user)[-max_len:].astype(np.int64)) for user in part.tolist()]
        lengths = torch.tensor([len(row) for row in rows])  # (B,)
        items = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)  # (B, L)
        found.append(model.queries(SeqBatch(items.to(device), lengths.to(device))).float().cpu())
    return torch.cat(found)


@torch.no_grad()
def rank(
    model: Model, split: Split, part: Part, evaluator: Evaluator, device: torch.device, *, lists: bool = True
) -> Result:
    """Rank a model on one part of a split.

    Args:
        model: the model, on the device.
        split: of the log.
        part: valid or test.
        evaluator: candidates and metrics.
        device: where batches are made.
        lists: also take the metrics that need the recommended items.
    """
    windows = windows_of(split, part)
    model.eval()
    with held_out(model, part):
        return evaluator(windows, queries_of(windows, evaluator, device), model, split.train.item_counts(), lists=lists)


@contextmanager
def held_out(model: Model, part: str) -> Iterator[None]:
    """Inside, a blend scores each user of the validation with the weights that were learned from the others."""
    if isinstance(model, Blend):
        model.held_out = part == "valid"
    try:
        yield
    finally:
        if isinstance(model, Blend):
            model.held_out = False


def slices_of(result: Result, split: Split, part: Part, evaluator: Evaluator) -> dict[str, Any]:
    """Metrics of a result of `rank` by history length, target popularity and cold items."""
    return by_slice(result, windows_of(split, part), split.train.item_counts(), evaluator.ks)


def full_protocol(result: Result, sequences: Sequences, split: Split, seed: int) -> dict[str, Any]:
    """Everything that a figure must be quoted with."""
    prepared: dict[str, Any] = {
        "k_core": sequences.k_core,
        "min_length": sequences.min_length,
        "duplicates": sequences.duplicates,
        "data_fingerprint": sequences.fingerprint,
        **{key: sequences.reading[key] for key in ("columns", "order", "dropped") if key in sequences.reading},
    }
    return {**split.protocol, **prepared, "seed": seed, **result.protocol, **reach(result)}


def reach(result: Result) -> dict[str, float]:
    """The share of targets that cannot be hit, and the best that recall, ndcg or mrr can be; nothing where all can be hit."""
    missed, total = result.protocol.get("unreachable_targets", 0), result.protocol["num_targets"]
    return {"unreachable_share": missed / total, "best_possible": 1 - missed / total} if missed else {}


def identity(sequences: Sequences) -> dict[str, Any]:
    """The log that a checkpoint belongs to."""
    return {"data_fingerprint": sequences.fingerprint, "num_items": sequences.num_items}
