"""CoSeRec (Liu et al., 2021, arXiv 2108.06479)."""

from __future__ import annotations

from functools import partial

from seqcl import encoders
from seqcl.augment import ByLength, Correlation, Crop, Insert, Mask, OneOf, Pair, Reorder, Substitute
from seqcl.models.base import Contrastive
from seqcl.objectives import NextItem, TwoViews
from seqcl.types import Windows


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
    """Two views of a row: short rows draw from substitute, insert and mask, long ones from all five.

    Args:
        crop: share of a row that a crop keeps.
        mask: share of a row that is masked.
        reorder: share of a row that is shuffled.
        substitute: share of a row that correlated items replace (paper 0.1 to 0.9).
        insert: share of a row before which correlated items go in (paper 0.1 to 0.9).
        threshold: items up to which a row is short (paper 4).
        correlation: cooccurrence (ItemCF-IUF), embedding (of the model in training), or hybrid, the surer of the two.
        warmup: epochs by co-occurrence alone before embeddings count.
    """
    short = [Substitute(rate=substitute, least=1), Insert(rate=insert, least=1), Mask(rate=mask)]
    long = [Crop(rate=crop), Reorder(rate=reorder), *short]
    view = ByLength(short=OneOf(views=short), long=OneOf(views=long), threshold=threshold)
    return Pair(views=[view], correlation=correlation, warmup=warmup)


class CoSeRec(Contrastive):
    """Next item and contrast of views that correlated items make robust (Liu et al. 2021, arXiv 2108.06479).

    Differs from the paper: full softmax over cosines instead of one sampled negative; rows of the same user or with the same target
    are not negatives of each other; a row is represented by its newest state, where the code has all (`objective.states` all); the scores of
    the hybrid are scaled among the neighbours kept, where the code scales them among all pairs.
    As in the code, substitute and insert change one item at least.
    """

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
        views: partial[Pair] = partial(by_length),
        objective: partial[TwoViews] = partial(TwoViews, temperature=0.2),
    ) -> None:
        super().__init__(train, encoder=encoder, next_item=next_item, views=views, objective=objective)
