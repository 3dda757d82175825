"""SGL (Wu et al., SIGIR 2021, arXiv 2010.10783) on the transitions of all rows."""

from __future__ import annotations

from seqcl import encoders
from seqcl.models.base import Parts, Recommender
from seqcl.models.pretraining import ContrastFirst
from seqcl.objectives import ItemGraph, Objective
from seqcl.parts import part


class SGLRec(Recommender):
    """Next item, and items that must know themselves in two thinned graphs of transitions (Wu et al. 2021, arXiv 2010.10783).

    Differs from the paper: the items of a sequence encoder, and the graph is that of what followed what. The ranking term reads no
    vectors of the graph, so that the contrast alone knows it. There is no term of users; neighbours are averaged, edges drop anew in
    each step, and negatives are of the batch.
    """

    pretrain = part(ContrastFirst)
    graph = part(ItemGraph)

    contrast_off = ()

    def terms(self, encoder: encoders.Encoder, parts: Parts) -> dict[str, Objective]:
        return {**super().terms(encoder, parts), "graph": parts["graph"]()}
