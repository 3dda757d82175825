"""The geometry of a model's vectors: how many directions they use, how evenly, and how near states are to their targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.data import Split
from seqcl.evaluation import Evaluator, effective_rank, singular_values, spectrum
from seqcl.experiment.ranking import queries_of
from seqcl.losses import alignment, uniformity
from seqcl.models import Recommender

ITEMS = 16_384
"""Item vectors that are looked at, evenly spaced over the ids."""


def item_vectors(model: Recommender) -> Tensor:
    """Embeddings of items, all or `ITEMS` of them: (n, D) float32."""
    return model.encoder.item_vectors(item_ids(model)).float()


def item_ids(model: Recommender) -> Tensor:
    """The ids of these items."""
    number, device = model.encoder.num_items, next(model.parameters()).device
    return torch.linspace(1, number, min(number, ITEMS), dtype=torch.float64, device=device).round().long()


def states_and_targets(
    model: Recommender, split: Split, evaluator: Evaluator, device: torch.device, *, rows: int
) -> tuple[Tensor, Tensor]:
    """States of validation rows, evenly spaced over all, and the vectors of their targets: (M, D) float32 each."""
    loader = queries_of(split.valid, evaluator, device)
    places = np.linspace(0, len(split.valid) - 1, min(rows, len(split.valid))).astype(
        np.int64
    )  # by length, short ones first
    states, targets = [], []
    for start in range(0, len(places), evaluator.batch_size):
        batch = loader.gather(places[start : start + evaluator.batch_size])
        assert batch.targets is not None
        states.append(model.encoder.last(batch._replace(targets=None)).float())
        targets.append(model.encoder.item_vectors(batch.targets).float())
    return torch.cat(states), torch.cat(targets)


@torch.no_grad()
def curves_of(model: Recommender, split: Split, evaluator: Evaluator, device: torch.device) -> dict[str, float]:
    """Figures that are logged at every validation: effective ranks, uniformity of states, alignment with targets.

    The model must be in evaluation mode. It takes some hundredths of the time of a validation.
    """
    states, targets = states_and_targets(model, split, evaluator, device, rows=1024)
    return {
        "item_effective_rank": effective_rank(singular_values(item_vectors(model))),
        "state_effective_rank": effective_rank(singular_values(states)),
        "state_uniformity": float(uniformity(states)),
        "target_alignment": float(alignment(states, targets)),
    }


def geometry_of(items: Tensor, states: Tensor, targets: Tensor) -> dict[str, Any]:
    """Singular values, effective rank, mean cosine and uniformity of items and of states; alignment of states with targets.

    Args:
        items: (n, D).
        states: (M, D).
        targets: (M, D) vectors of the items that came next.
    """
    found: dict[str, Any] = {"dim": items.shape[1], "target_alignment": float(alignment(states, targets))}
    found["target_cosine"] = float(F.cosine_similarity(states, targets).mean())
    for name, vectors in (("items", items), ("states", states)):
        some = vectors[
            torch.linspace(0, len(vectors) - 1, min(len(vectors), 4096)).long()
        ]  # pairs grow with the square
        found[name] = {
            "vectors": len(vectors),
            "singular_values": singular_values(vectors).tolist(),
            **spectrum(vectors),
            "uniformity": float(uniformity(some.double())),
        }
    return found
