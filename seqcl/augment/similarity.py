"""Correlated items, from the interactions that training may know and no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqcl.blocks import block_rows, over_blocks
from seqcl.blocks import top_k as top_k_of

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Correlation = Literal["cooccurrence", "embedding", "hybrid"]


def item_cf_iuf(
    users: np.ndarray, items: np.ndarray, num_items: int, *, top_k: int = 1, block: int = 2048
) -> tuple[Tensor, Tensor]:
    """Find for each item i the `top_k` items j of largest w_ij, the ItemCF-IUF score.

    w_ij is the sum over common users u of 1 / log(1 + |I_u|), divided by sqrt(|U_i| |U_j|).
    Repeats of a (user, item) count once; equal scores go to the smaller id. An item with fewer than `top_k` neighbours
    has its best one again, with score 0. An item with none has itself; so have PAD and MASK.
    Co-occurrences are held for `block` items at a time: memory does not grow with N squared.
    Source: CoSeRec, arXiv 2108.06479, eq. 7 and its code; Breese et al., UAI 1998, for the inverse user frequency.

    Args:
        users: (T,) user of each interaction, 0-based.
        items: (T,) item of each interaction, 1 to N.
        num_items: N.
        top_k: Neighbours kept for each item, K.
        block: Items handled at once.

    Returns:
        Ids (N + 2, K) int64 and scores (N + 2, K) float32, best first.
    """
    from scipy import sparse  # costs time at start-up, which most runs do not need

    size = num_items + 2
    users, items = np.divmod(np.unique(users.astype(np.int64) * size + items), size)  # (T',), each pair once
    weight = 1 / np.log1p(np.maximum(np.bincount(users, minlength=1), 1))  # (U,)
    norm = np.sqrt(np.maximum(np.bincount(items, minlength=size), 1))  # (N + 2,)
    left = sparse.csr_array((np.ones(len(users)), (items, users)), shape=(size, len(weight)))  # (N + 2, U)
    right = sparse.csr_array((weight[users], (users, items)), shape=(len(weight), size))  # (U, N + 2)

    ids = np.repeat(np.arange(size)[:, None], top_k, axis=1)  # (N + 2, K)
    scores = np.zeros((size, top_k), dtype=np.float32)  # (N + 2, K)
    for low in range(0, size, block):
        item, other, score, rank = _ranked(left[low : low + block] @ right, low, norm)
        best, kept = (rank == 0) & (score > 0), (rank < top_k) & (score > 0)
        ids[item[best]] = other[best, None]
        ids[item[kept], rank[kept]] = other[kept]
        scores[item[kept], rank[kept]] = score[kept]
    return torch.from_numpy(ids), torch.from_numpy(scores)


TILE = 4096
"""Items whose similarities to a block exist at one time; at 120,000 items this took two thirds of the time of whole rows."""


def by_embedding(table: Tensor, *, top_k: int = 1) -> tuple[Tensor, Tensor]:
    """Find for each item the `top_k` other items of largest cosine of their embeddings; PAD and MASK have themselves.

    Source: CoSeRec, arXiv 2108.06479, section 3.1. Differs from the paper: cosines in place of inner products.

    Args:
        table: (N + 2, D).
        top_k: Neighbours kept for each item, K.

    Returns:
        Ids (N + 2, K) int64 and scores (N + 2, K) float32, best first.
    """
    unit = F.normalize(table[1:-1].float(), dim=1)  # (N, D)
    size, device = len(unit), table.device
    ids = torch.arange(size + 2, device=device)[:, None].repeat(1, top_k)  # (N + 2, K)
    scores = torch.zeros(ids.shape, device=device)  # (N + 2, K)
    step, found = block_rows(min(size, TILE), device), min(top_k, size - 1)

    def work(starts: Iterator[int]) -> None:
        for start in starts:
            rows = unit[start : start + step]  # (C, D)
            tiles = []
            for low in range(0, size, TILE):
                near = rows @ unit[low : low + TILE].T  # (C, TILE)
                first, last = max(start, low), min(start + len(rows), low + near.shape[1])
                itself = torch.arange(first, max(first, last), device=device)
                near[itself - start, itself - low] = -torch.inf
                best, other = top_k_of(near, found)
                tiles.append((best, other + low))
            all_best, all_others = (torch.cat(parts, 1) for parts in zip(*tiles, strict=True))
            best, place = all_best.topk(found)
            other = all_others.gather(1, place) + 1
            part = slice(start + 1, start + 1 + len(rows))
            scores[part, :found], ids[part, :found], ids[part, found:] = best, other, other[:, :1]

    if found:
        over_blocks(work, size, step, device)
    return ids, scores


def surer(one: tuple[Tensor, Tensor], two: tuple[Tensor, Tensor]) -> Tensor:
    """Take from two neighbour tables the neighbour of higher score, place by place, each table scaled to 0..1: (N + 2, K).

    Source: CoSeRec, arXiv 2108.06479, section 3.1. Differs from the authors' code, which scales by the least and largest
    score of all pairs, not of the neighbours kept; there embeddings nearly always win.
    """
    scaled = []
    for _, scores in (one, two):
        items = scores[1:-1]
        low, high = items.min(), items.max()
        scaled.append((scores - low) / (high - low).clamp(min=torch.finfo(scores.dtype).tiny))
    return torch.where(scaled[1] > scaled[0], two[0], one[0])


def _ranked(together: csr_array, low: int, norm: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """List all pairs in a block of co-occurrences whose first row is item `low`: item, other, score, rank (P,) each.

    The rank is the place of the other among all others of the item, best first.
    """
    together.sort_indices()
    sizes = np.diff(together.indptr)
    item = np.repeat(np.arange(len(sizes)) + low, sizes)  # (P,)
    other = together.indices.astype(np.int64)  # (P,)
    score = (together.data / (norm[item] * norm[other])).astype(np.float32)  # (P,)
    score[item == other] = 0  # puts the item itself last
    # Positive floats order as their bits do; one stable sort of (item, bits) costs a fraction of one by three columns.
    order = np.argsort((item << 32) - score.view(np.int32), kind="stable")
    return item, other[order], score[order], np.arange(len(item)) - np.repeat(together.indptr[:-1], sizes)
