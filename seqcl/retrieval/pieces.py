"""Go through the vectors of a catalogue in pieces, so that they may be a file mapped into memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from seqcl.blocks import top_k

PIECE = 65536
"""Vectors that are read at once."""
TRAINED = 1 << 20
"""Number of vectors up to which cells and codes are learned from all of them, of which faiss itself draws some."""
CELL_POINTS = 64
"""Vectors a cell to learn from: of 200,000 vectors, 64 find .994 of the exact list; 256 find .995 and take longer."""
SCORED = 16384
"""Vectors that many queries are compared with at once: 65 MB of scores for 1,000 queries."""


def pieces(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """Cut vectors into pieces of `PIECE` rows."""
    return (vectors[start : start + PIECE] for start in range(0, len(vectors), PIECE))


def squares(vectors: np.ndarray) -> np.ndarray:
    """The squared lengths of vectors: (n,) float64."""
    return np.square(vectors, dtype=np.float64).sum(1)


def sample_of(vectors: np.ndarray, least: int) -> np.ndarray:
    """All vectors, or of more than `TRAINED` a random sample of that many, or of `least` if that is more."""
    size = max(TRAINED, least)
    if len(vectors) <= size:
        return vectors
    return vectors[np.sort(np.random.default_rng(0).choice(len(vectors), size, replace=False))]


def best_scores(vectors: Tensor, queries: Tensor, k: int) -> Tensor:
    """The k largest inner products of each query (B, D) with the vectors (N, D), largest first: (B, min(k, N))."""
    best = queries.new_empty(len(queries), 0)
    for part in vectors.split(SCORED):
        best = torch.cat((best, top_k(queries @ part.T, k)[0]), 1)
        best = best.topk(min(k, best.shape[1])).values
    return best
