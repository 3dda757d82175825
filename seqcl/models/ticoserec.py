"""TiCoSeRec (Dang et al., AAAI 2023, arXiv 2212.08262)."""

from __future__ import annotations

from functools import partial

from seqcl import encoders
from seqcl.augment import ByLength, Correlation, Crop, Insert, Mask, OneOf, Pair, Reorder, Substitute
from seqcl.models.base import Contrastive
from seqcl.objectives import NextItem, TwoViews
from seqcl.types import Windows


def evened_out(
    *,
    crop: float = 0.4,
    mask: float = 0.7,
    reorder: float = 0.5,
    substitute: float = 0.2,
    insert: float = 0.5,
    threshold: int = 12,
    correlation: Correlation = "hybrid",
    warmup: int = 5,
) -> Pair:
    """Two views of a row whose gaps in time are more even: short rows draw from substitute, insert and mask.

    Args:
        crop: share of a row that is kept, where its gaps vary least.
        mask: share of a row that is masked.
        reorder: share of a row that is shuffled, where its gaps vary least.
        substitute: share of a row that correlated items replace, after the smallest gaps.
        insert: share of a row before which correlated items go in, into the largest gaps.
        threshold: items up to which a row is short (paper 12).
        correlation: cooccurrence (ItemCF-IUF), embedding (of the model in training), or hybrid, the surer of the two.
        warmup: epochs by co-occurrence alone before embeddings count.
    """
    small, large = Substitute(rate=substitute, least=1, gaps="small"), Insert(rate=insert, least=1, gaps="large")
    short = [small, large, Mask(rate=mask)]
    long = [Crop(rate=crop, even=True), Reorder(rate=reorder, even=True), *short]
    view = ByLength(short=OneOf(views=short), long=OneOf(views=long), threshold=threshold)
    return Pair(views=[view], correlation=correlation, warmup=warmup)


class TiCoSeRec(Contrastive):
    """CoSeRec with views that even out the gaps in time; needs timestamps (Dang et al. 2023, arXiv 2212.08262).

    Differs from the paper: full softmax over cosines instead of one sampled negative; every row is augmented, the most even ones too, from the
    first epoch on, where the code begins with 40 epochs without contrast; an inserted item is a neighbour of the one behind the gap,
    in the code of the one before it, and has the time of the item behind it;
    rows of the same user or with the same target are not negatives of each other.
    """

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        next_item: partial[NextItem] = partial(NextItem, similarity="cosine", temperature=0.1),
        views: partial[Pair] = partial(evened_out),
        objective: partial[TwoViews] = partial(TwoViews, temperature=0.2),
    ) -> None:
        super().__init__(train, encoder=encoder, next_item=next_item, views=views, objective=objective)
