"""Linear item-item models in closed form: a row scores an item by the weights from its items to that one."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import linalg, sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator, eigsh
from torch import Tensor

from seqcl.errors import UserError
from seqcl.models.base import Baseline
from seqcl.parts import Part, part
from seqcl.types import SeqBatch, Windows

DENSE = 30_000
"""Items up to which the weights of all pairs are made: N * N floats three times over, 11 GB at that number; see `ROUGH`."""

ROUGH = 1e-3
"""Largest relative error of an inverse, estimated; where float32 would be off by more, float64 takes its place, and twice the memory."""

LEAST = 1e-3
"""Decayed weights below this are left out."""


def closed_form(
    train: Windows,
    *,
    likeness: float = 0.0,
    decay: float = 1.0,
    recency: float = 1.0,
    ridge: float = 10.0,
    diagonal: float | None = None,
    rank: int = 0,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Make the weights B that minimise a |X - X B|^2 + (1 - a) |T - S B|^2 + ridge |B|^2, with a = likeness.

    X has the items of each row. S and T have a line for every place at which a row can be split: the items before it and those
    behind it, with weights that fall by exp(-distance / decay) (Choi et al., WWW 2021, arXiv 2103.16104, equations 4 to 7).

    Args:
        train: the training windows.
        likeness: part of the first term, 0 to 1: 1 knows no order.
        decay: distance from a split, in items, at which a weight has fallen to 1 / e.
        recency: age in items at which an item of the row to be continued has fallen to 1 / e in the scores; 0: all count alike.
        ridge: the larger, the closer to 0 are the weights.
        diagonal: largest weight of an item to itself; None for no limit. With a rank, weights to other items are not fitted anew.
        rank: 0 makes the weights of all pairs; else they are made of so many singular vectors of the items.

    Returns:
        (N, N), None and None; or, with a rank r, (N, r) and (r, N), whose product are the weights, and (N,), by how much the
        weight of each item to itself is above `diagonal`; None without a limit.

    Raises:
        UserError: a value out of its range, or too small a ridge, or too many items for all pairs.
    """
    check_weights("weights", train.num_items, likeness=likeness, decay=decay, recency=recency, ridge=ridge, rank=rank)
    if not rank:
        return dense(*products(train, likeness=likeness, decay=decay), ridge, diagonal), None, None
    left, right = sets(train) if likeness == 1 else products(train, likeness=likeness, decay=decay)
    table, beside = low_rank(left, right, ridge, min(rank, train.num_items - 1))
    over = None if diagonal is None else ((table * beside.T).sum(1) - diagonal).clamp(min=0)
    return table, beside, over


def check_weights(
    section: str,
    num_items: int,
    *,
    likeness: float = 0.0,
    decay: float = 1.0,
    recency: float = 1.0,
    ridge: float = 10.0,
    rank: int = 0,
    **others: object,
) -> None:
    """Refuse options of `closed_form`, without making anything.

    Args:
        section: name of the section that the options are in.
        num_items: N.
        likeness: as there; so are those that follow.

    Raises:
        UserError: names the option that is out of its range, or there are too many items for all pairs.
    """
    for name, value, fits, told in (
        ("ridge", ridge, ridge > 0, "above 0"),
        ("decay", decay, decay > 0, "above 0"),
        ("likeness", likeness, 0 <= likeness <= 1, "from 0 to 1"),
        ("recency", recency, recency >= 0, "0 or more"),
        ("rank", rank, rank >= 0, "0 or more"),
    ):
        if not fits:
            raise UserError(f"{section}.{name} must be {told}, not {value}")
    if likeness == 1 and decay != 1:
        raise UserError(f"{section}.decay={decay} needs {section}.likeness below 1: sets of items know no distance")
    if not rank and num_items > DENSE:
        raise UserError(
            f"{section}: {num_items:,} items have too many pairs (up to {DENSE:,} items): give {section}.rank, such as 512"
        )


def products(train: Windows, *, likeness: float, decay: float) -> tuple[sparse.csr_array, sparse.csr_array]:
    """The matrices a X'X + (1 - a) S'S and a X'X + (1 - a) S'T: (N, N) each.

    Two items that are g places apart meet at g splits in S'T, each time with the weight exp(-(g - 1) / decay). In S'S they meet at
    every split behind the later one.
    """
    size = train.num_items
    items = train.known()[1]
    lengths = train.ends - train.offsets[:-1]
    behind = np.repeat(np.cumsum(lengths), lengths) - np.arange(
        len(items)
    )  # items from this one to the row's end, itself included
    left = right = sparse.csr_array((size, size), dtype=np.float64)
    if likeness:
        rows = together(train)
        left = right = (rows.T @ rows) * likeness
    if likeness < 1:
        share, fall = 1 - likeness, np.exp(-2 / decay)
        splits = (1 - fall ** (behind - 1)) / (1 - fall)  # decayed number of splits behind each item
        past, ahead = pairs(items, items, share * splits, size), sparse.csr_array((size, size))
        for gap in range(1, int(lengths.max(initial=1))):
            weight = gap * np.exp(-(gap - 1) / decay)
            if gap > decay and weight < LEAST:
                break
            here = np.flatnonzero(behind > gap)  # whose item `gap` places later is in the same row
            ahead = ahead + pairs(items[here], items[here + gap], np.full(len(here), share * weight), size)
            beside = pairs(items[here], items[here + gap], share * np.exp(-gap / decay) * splits[here + gap], size)
            past = past + beside + beside.T
        left, right = left + past, right + ahead
    return sparse.csr_array(left), sparse.csr_array(right)


def sets(train: Windows) -> tuple[LinearOperator, LinearOperator]:
    """X'X as what it does to vectors (N, r), twice: no pair of items takes memory."""
    rows = aslinearoperator(together(train))
    product = rows.T @ rows
    return product, product


def together(train: Windows) -> sparse.csr_array:
    """X: 1 where a user has an item, (U, N)."""
    users, items = train.known()
    rows = sparse.csr_array((np.ones(len(items)), (users, items - 1)), shape=(int(users.max()) + 1, train.num_items))
    rows.data[:] = 1  # an item that comes twice is there once
    return rows


def pairs(first: np.ndarray, second: np.ndarray, weights: np.ndarray, size: int) -> sparse.csr_array:
    """The summed weights of pairs of item ids: (N, N)."""
    return sparse.csr_array((weights, (first - 1, second - 1)), shape=(size, size))


def dense(left: sparse.csr_array, right: sparse.csr_array, ridge: float, diagonal: float | None) -> Tensor:
    """Solve for all pairs; the limit of the diagonal by its multipliers (Steck, WWW 2019, arXiv 1905.03375, equation 8).

    Raises:
        UserError: the ridge is so small that not even float64 can tell it from 0.
    """
    largest = abs(left).sum(1).max()  # no eigenvalue is larger
    exact = next((one for one in (np.float32, np.float64) if largest * np.finfo(one).eps < ROUGH * ridge), None)
    if exact is None:
        least = largest * np.finfo(np.float64).eps / ROUGH
        raise UserError(
            f"ridge {ridge:g} is too small to be told from 0 beside counts of this size: give {least:.1g} or more"
        )
    normal = left.toarray().astype(exact)
    normal.flat[:: len(normal) + 1] += ridge
    inverse = invert(normal)
    weights = (right.T.astype(exact) @ inverse).T  # the right side is sparse, so this is cheaper than to solve for it
    if diagonal is not None:
        over = np.maximum(weights.diagonal() - diagonal, 0) / inverse.diagonal()
        inverse *= over
        weights -= inverse
    return torch.from_numpy(np.ascontiguousarray(weights, dtype=np.float32))


def invert(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a symmetric positive definite matrix (N, N), which is written over."""
    factorise, finish = linalg.get_lapack_funcs(("potrf", "potri"), (matrix,))
    factor, failed = factorise(matrix.T, lower=False, overwrite_a=True)
    assert not failed
    inverse, failed = finish(factor, lower=False, overwrite_c=True)
    assert not failed
    inverse = np.triu(inverse)
    inverse += np.triu(inverse, 1).T
    return inverse


def low_rank(
    left: sparse.csr_array | LinearOperator, right: sparse.csr_array | LinearOperator, ridge: float, rank: int
) -> tuple[Tensor, Tensor]:
    """Solve within the largest eigenvectors of the left matrix."""
    values, vectors = eigsh(left, k=rank, v0=np.ones(left.shape[0]))  # (r,), (N, r)
    beside = (right.T @ vectors).T / (values + ridge)[:, None]  # (r, N)
    return torch.from_numpy(vectors).float().contiguous(), torch.from_numpy(beside).float().contiguous()


class Linear(Baseline):
    """Scores that are sums of weights from the items of a row, newer ones counting more."""

    weights = part(closed_form)

    table: Tensor
    beside: Tensor
    over: Tensor | None

    def __init__(self, train: Windows, **parts: Part) -> None:
        super().__init__(train, **parts)
        made = self.parts["weights"]
        self.recency = {**{"recency": 1.0}, **made.options}["recency"]
        table, beside, over = made(train)
        self.register_buffer("table", F.pad(table, (0, 0, 1, 1)))  # rows of PAD and MASK have no weight
        self.register_buffer("beside", table.new_zeros(0, 0) if beside is None else beside)
        self.register_buffer("over", over)

    def scores(self, batch: SeqBatch) -> Tensor:
        """Decayed sums of weights: (B, N)."""
        time = torch.arange(batch.items.shape[1], device=batch.items.device)
        age = batch.lengths[:, None] - 1 - time  # (B, L), the newest has 0
        weight = torch.exp(-age / self.recency) if self.recency else torch.ones_like(age, dtype=torch.float32)
        again = (batch.items[:, :, None] == batch.items[:, None]) & (time > time[:, None])  # (B, L, L), comes later too
        counts = (age >= 0) & ~again.any(2)  # (B, L)
        size = counts.sum(1)
        first = size.cumsum(0) - size  # (B,), of each row among the items that count
        weight = weight.expand_as(counts)[counts].to(self.table.dtype)
        sums = F.embedding_bag(
            batch.items[counts], self.table, first, per_sample_weights=weight, mode="sum"
        )  # (B, N) or (B, r)
        scores = sums @ self.beside if len(self.beside) else sums
        if self.over is not None:
            row, items = counts.nonzero()[:, 0], batch.items[counts] - 1
            known = (items >= 0) & (items < len(self.over))  # neither PAD nor MASK
            row, items, weight = row[known], items[known], weight[known]
            scores.index_put_((row, items), -weight * self.over[items], accumulate=True)
        return scores
