"""Views of sequences: operators, their compositions, and the item correlation that some of them use."""

from seqcl.augment.compose import ByLength, Chain, OneOf, Pair, route, stack
from seqcl.augment.operators import crop, insert, mask, reorder, substitute
from seqcl.augment.same_target import SameTarget
from seqcl.augment.similarity import Correlation, by_embedding, item_cf_iuf, surer
from seqcl.augment.views import Crop, Identity, Insert, Mask, Reorder, Substitute, View

VIEWS: dict[str, type[View]] = {
    "Identity": Identity,
    "Crop": Crop,
    "Mask": Mask,
    "Reorder": Reorder,
    "Substitute": Substitute,
    "Insert": Insert,
    "SameTarget": SameTarget,
    "OneOf": OneOf,
    "Chain": Chain,
    "ByLength": ByLength,
}
"""Every view by the name that configurations use."""

__all__ = [
    "VIEWS",
    "ByLength",
    "Chain",
    "Correlation",
    "Crop",
    "Identity",
    "Insert",
    "Mask",
    "OneOf",
    "Pair",
    "Reorder",
    "SameTarget",
    "Substitute",
    "View",
    "by_embedding",
    "crop",
    "insert",
    "item_cf_iuf",
    "mask",
    "reorder",
    "route",
    "stack",
    "substitute",
    "surer",
]
