"""The pairs of views that recipes declare: what makes the two views of every row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from seqcl.augment.compose import ByLength, OneOf, Pair
from seqcl.augment.gaps import Gaps, Side
from seqcl.augment.graph import EdgeDrop, NodeDrop, Subgraph
from seqcl.augment.same_target import SameTarget
from seqcl.augment.similarity import Correlation
from seqcl.augment.views import Crop, Identity, Insert, Mask, Reorder, Substitute, View
from seqcl.errors import UserError, check_choice

Positives = Literal["supervised", "unsupervised", "both"]


def crop_mask_reorder(
    *,
    crop: float = 0.6,
    mask: float = 0.3,
    reorder: float = 0.6,
    distinct: bool = False,
    number: int = 2,
    keep_single: bool = False,
) -> Pair:
    """Make two views of a row, or more, each by one operator drawn for that row (CL4SRec, arXiv 2010.14395).

    Args:
        crop: Part of a row that a crop keeps; 0 leaves the operator out.
        mask: Part of a row that is masked; 0 leaves the operator out.
        reorder: Part of a row that is shuffled; 0 leaves the operator out.
        distinct: Take different operators for the views of a row.
        number: Views of a row; more than 2 for `TwoViews` alone, with `distinct` each by an operator of its own (CMC, arXiv
            1906.05849).
        keep_single: Leave rows of one item as they are, as the code of MCLRec does.
    """
    operators: list[tuple[Callable[..., View], float]] = [(Crop, crop), (Mask, mask), (Reorder, reorder)]
    views = [operator(rate=rate) for operator, rate in operators if rate]
    if not views:
        raise UserError("no operator is left: give crop, mask or reorder above 0")
    if keep_single:
        views = [ByLength(short=Identity(), long=view, threshold=1) for view in views]
    return Pair(views=views, distinct=distinct, number=number)


def node_edge_mask_subgraph(
    *,
    nodes: float = 0.2,
    edges: float = 0.2,
    mask: float = 0.2,
    subgraph: float = 0.8,
    least: int = 0,
    distinct: bool = False,
) -> Pair:
    """Make two views of a row as a graph of transitions, each by one operator drawn for that row (GraphCL, arXiv 2010.13902).

    Args:
        nodes: Part of a row's items that is dropped; 0 leaves the operator out.
        edges: Part of a row's transitions that is cut; 0 leaves the operator out.
        mask: Part of a row that is masked, the paper's attribute mask; 0 leaves the operator out.
        subgraph: Part of a row's items that a random walk keeps; 0 leaves the operator out.
        least: Smallest number of items dropped or masked and of transitions cut, in rows that have so many; 1 changes short rows too.
        distinct: Take two different operators for the two views of a row.
    """
    operators: list[tuple[Callable[..., View], float]] = [
        (partial(NodeDrop, least=least), nodes),
        (partial(EdgeDrop, least=least), edges),
        (partial(Mask, least=least), mask),
        (Subgraph, subgraph),
    ]
    views = [operator(rate=rate) for operator, rate in operators if rate]
    if not views:
        raise UserError("no operator is left: give nodes, edges, mask or subgraph above 0")
    return Pair(views=views, distinct=distinct)


def by_length(
    *,
    crop: float = 0.6,
    mask: float = 0.3,
    reorder: float = 0.6,
    substitute: float = 0.1,
    insert: float = 0.4,
    threshold: int = 4,
    correlation: Correlation = "hybrid",
    warmup: int = 5,
) -> Pair:
    """Make two views of a row: short rows draw from substitute, insert and mask, long ones from all five operators.

    Source: CoSeRec, arXiv 2108.06479, section 3.3.

    Args:
        crop: Part of a row that a crop keeps.
        mask: Part of a row that is masked.
        reorder: Part of a row that is shuffled.
        substitute: Part of a row that correlated items replace; 0.1 to 0.9 in the paper.
        insert: Part of a row that gets a correlated item before it; 0.1 to 0.9 in the paper.
        threshold: Items up to which a row is short; 4 in the paper.
        correlation: Source of correlated items: cooccurrence (ItemCF-IUF), embedding (the model's own item
            embeddings), or hybrid, the surer of the two.
        warmup: Epochs of each stage by co-occurrence alone, before embeddings count.
    """
    short: list[View] = [Substitute(rate=substitute, least=1), Insert(rate=insert, least=1), Mask(rate=mask)]
    longer: list[View] = [Crop(rate=crop), Reorder(rate=reorder)]
    return _short_and_long(short, longer, threshold=threshold, correlation=correlation, warmup=warmup)


def evened_out(
    *,
    crop: float = 0.4,
    mask: float = 0.7,
    reorder: float = 0.5,
    substitute: float = 0.2,
    insert: float = 0.5,
    threshold: int = 12,
    masked: Gaps = "any",
    side: Side = "after",
    correlation: Correlation = "hybrid",
    warmup: int = 5,
) -> Pair:
    """Make two views of a row with more even gaps in time: short rows draw from substitute, insert and mask.

    Long rows draw from all five operators. Needs the times of the items. Source: TiCoSeRec, arXiv 2212.08262.

    Args:
        crop: Part of a row that a crop keeps, where the gaps vary least.
        mask: Part of a row that is masked.
        reorder: Part of a row that is shuffled, where the gaps vary least.
        substitute: Part of a row that correlated items replace, at the smallest gaps.
        insert: Part of a row that gets a correlated item before it, in the largest gaps.
        threshold: Items up to which a row is short; 12 in the paper.
        masked: Places that are masked: any, or those at the smallest or largest gaps; large in the authors' command for
            Beauty.
        side: The item of a gap that is masked, replaced, or whose neighbour is inserted: the one after it, or the one before
            it, as in the authors' code.
        correlation: Source of correlated items: cooccurrence (ItemCF-IUF), embedding (the model's own item
            embeddings), or hybrid, the surer of the two.
        warmup: Epochs of each stage by co-occurrence alone, before embeddings count.
    """
    small = Substitute(rate=substitute, least=1, gaps="small", side=side)
    large = Insert(rate=insert, least=1, gaps="large", side=side)
    longer: list[View] = [Crop(rate=crop, even=True), Reorder(rate=reorder, even=True)]
    return _short_and_long(
        [small, large, Mask(rate=mask, gaps=masked, side=side)],
        longer,
        threshold=threshold,
        correlation=correlation,
        warmup=warmup,
    )


def _short_and_long(
    short: Sequence[View], longer: Sequence[View], *, threshold: int, correlation: Correlation, warmup: int
) -> Pair:
    """Make two views of a row: short rows draw from `short`, long ones from `longer` and `short` together."""
    view = ByLength(short=OneOf(views=short), long=OneOf(views=[*longer, *short]), threshold=threshold)
    return Pair(views=[view], correlation=correlation, warmup=warmup)


def row_and_same_target() -> Pair:
    """Pair the row with a row of another user that has the same target (DuoRec, arXiv 2110.05730)."""
    return Pair(views=[Identity(), SameTarget()], ordered=True)


def dropout_and_same_target(*, positives: Positives = "supervised") -> dict[str, Pair]:
    """Pair the row with another row of the same target, with itself under other dropout, or with both.

    Source: DuoRec, arXiv 2110.05730. Each pair makes a term of its own.

    Args:
        positives: supervised, the row under dropout against another row with the same target (the paper's contrastive
            regularisation); unsupervised, two dropout draws of the row; both, one term of each.
    """
    check_choice("positives", positives, Positives)
    pairs: dict[str, Pair] = {}
    if positives != "supervised":
        pairs["dropout"] = Pair(views=[Identity()])
    if positives != "unsupervised":
        pairs["same_target"] = row_and_same_target()
    return pairs
