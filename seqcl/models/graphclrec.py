"""GraphCL (You et al., NeurIPS 2020, arXiv 2010.13902) on the transitions of a row."""

from __future__ import annotations

from seqcl.augment import node_edge_mask_subgraph
from seqcl.models.base import Contrastive
from seqcl.objectives import TwoViews
from seqcl.parts import part


class GraphCLRec(Contrastive):
    """Next item and contrast of views of a row as a graph of transitions (You et al. 2020, arXiv 2010.13902).

    Differs from the paper: an encoder of sequences reads what is left of the graph as a row, in place of a graph network; the
    negatives are views of both kinds instead of the other kind, and the partner stands in the sum with them, where the authors' code
    leaves it out; edges are cut, and none is added, as in their code for unsupervised learning; theirs for few labels adds as many.
    """

    views = part(node_edge_mask_subgraph)
    objective = part(TwoViews, head="mlp", temperature=0.2)
