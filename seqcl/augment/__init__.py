"""Views of sequences: operators, their compositions, and the item correlation that some of them use."""

from seqcl.augment.compose import ByLength, Chain, OneOf, Pair, apart, halves, route, stack
from seqcl.augment.curriculum import Growing, growing_crop_mask_reorder
from seqcl.augment.graph import EdgeDrop, NodeDrop, Subgraph
from seqcl.augment.operators import crop, insert, mask, reorder, substitute
from seqcl.augment.pairs import (
    Positives,
    by_length,
    crop_mask_reorder,
    dropout_and_same_target,
    evened_out,
    node_edge_mask_subgraph,
    row_and_same_target,
)
from seqcl.augment.same_target import SameTarget
from seqcl.augment.similarity import Correlation, by_embedding, item_cf_iuf, surer
from seqcl.augment.views import Correlated, Crop, Identity, Insert, Mask, Rated, Reorder, Substitute, View
from seqcl.registry import table

VIEWS = table(
    "view",
    {
        "Identity": Identity,
        "Crop": Crop,
        "Mask": Mask,
        "Reorder": Reorder,
        "Substitute": Substitute,
        "Insert": Insert,
        "NodeDrop": NodeDrop,
        "EdgeDrop": EdgeDrop,
        "Subgraph": Subgraph,
        "SameTarget": SameTarget,
        "OneOf": OneOf,
        "Chain": Chain,
        "ByLength": ByLength,
    },
    View,
    Pair,
)
"""All views by the name that configurations use; others register theirs with `seqcl.register("view", ...)`."""

__all__ = [
    "VIEWS",
    "ByLength",
    "Chain",
    "Correlated",
    "Correlation",
    "Crop",
    "EdgeDrop",
    "Growing",
    "Identity",
    "Insert",
    "Mask",
    "NodeDrop",
    "OneOf",
    "Pair",
    "Positives",
    "Rated",
    "Reorder",
    "SameTarget",
    "Subgraph",
    "Substitute",
    "View",
    "apart",
    "by_embedding",
    "by_length",
    "crop",
    "crop_mask_reorder",
    "dropout_and_same_target",
    "evened_out",
    "growing_crop_mask_reorder",
    "halves",
    "insert",
    "item_cf_iuf",
    "mask",
    "node_edge_mask_subgraph",
    "reorder",
    "route",
    "row_and_same_target",
    "stack",
    "substitute",
    "surer",
]
