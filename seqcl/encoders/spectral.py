"""Item embeddings that begin with who had which items, rather than with noise alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from seqcl.encoders.base import Encoder
from seqcl.errors import UserError
from seqcl.types import Windows


def spectral(train: Windows, dim: int) -> np.ndarray:
    """Vectors of unit length, near for items that the same users had, from training alone: (N + 2, D).

    The best approximation of rank D of the matrix of users and items, each entry over the root of its user's number of items
    and its item's number of users (arXiv 2108.07567, section 4.1), by a truncated singular value decomposition. Items of which it has
    nothing, such as those that training never met, are zero.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import svds

    users, items = train.known()
    shape = (train.num_users, train.num_items + 2)
    had = csr_array((np.ones(len(users)), (users, items)), shape=shape)
    had.data[:] = 1  # once, however often
    by_user, by_item = had.sum(1), had.sum(0)
    had.data /= np.sqrt(np.repeat(by_user, np.diff(had.indptr)) * by_item[had.indices])
    rank = min(dim, min(shape) - 1)
    begin = np.random.default_rng(0).standard_normal(min(shape))  # so that each run gives the same
    _, values, right = svds(had, k=rank, v0=begin)
    vectors = np.pad(right.T * values, ((0, 0), (0, dim - rank)))  # (N + 2, D)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-9).astype(np.float32)


def begun_spectrally(encoder: Callable[..., Encoder], train: Windows) -> Callable[..., Encoder]:
    """An encoder's constructor, after which to its table's noise is added a spectral vector of the same length.

    Raises:
        UserError: when called, an encoder whose item embeddings are no parameter.
    """

    def built(**sizes: Any) -> Encoder:
        made = encoder(**sizes)
        with torch.no_grad():
            table = made.item_embeddings()  # (N + 2, D)
            if not isinstance(table, nn.Parameter):
                raise UserError(f"start spectral: {type(made).__name__} computes its item embeddings; use start random")
            length = table[1:-1].norm(dim=1).mean()
            table.add_(length * torch.from_numpy(spectral(train, table.shape[1])).to(table.device))
        return made

    return built
