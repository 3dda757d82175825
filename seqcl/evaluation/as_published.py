"""Rank as the code of S3-Rec does, which CoSeRec, ICLRec, ICSRec and others build on; for figures that were published so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from seqcl.evaluation.evaluate import Result, base_protocol, in_order
from seqcl.evaluation.metrics import rank_metrics
from seqcl.evaluation.ranks import Seen
from seqcl.evaluation.scores import Scorer
from seqcl.types import SeqBatch, Windows


@torch.no_grad()
def rank_as_published(
    windows: Windows, batches: Iterable[SeqBatch], scorer: Scorer, others: Tensor, *, ks: Sequence[int]
) -> Result:
    """Rank every target among all items, with seen items at score 0, and among what is no item.

    So a target with a negative score comes after all that its user has seen, and a user may be recommended the padding. Ties
    count against the target; in that code they fall as numpy's partition leaves them.

    Args:
        windows: one target each, items[stop].
        batches: rows of the windows in their order, with targets (B,) as item ids.
        scorer: a model with vectors.
        others: (n, D) vectors of further candidates, those of the padding and the MASK there.
        ks: lengths of the list at which metrics are taken, in items.
    """
    vectors, found = scorer.vectors(), []
    assert vectors is not None
    seen = Seen(windows, vectors.device)
    for start, batch in in_order(windows, batches):
        queries = scorer.queries(batch)  # (B, D)
        scores = queries @ vectors.T  # (B, N)
        scores[seen.pairs(start, start + len(scores))] = 0
        assert batch.targets is not None
        own = scores.gather(1, batch.targets[:, None] - 1)  # (B, 1)
        found.append((scores >= own).sum(1) + (queries @ others.T >= own).sum(1))
    ranks = torch.cat(found).cpu().numpy()
    protocol = base_protocol(windows, "full, padding and mask", exclude_seen=False)
    return Result(
        metrics=rank_metrics(ranks, ks),
        users=windows.users,
        targets=windows.items[windows.stop].astype(np.int64),
        ranks=ranks,
        protocol={**protocol, "exclude_seen": "at score 0"},
    )
