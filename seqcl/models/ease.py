"""EASE: weights between items in closed form, from items that share a user."""

from __future__ import annotations

from seqcl.models.linear import Linear, closed_form
from seqcl.parts import part


class EASE(Linear):
    """Items by ridge regression on all others of a user, no item on itself (Steck, WWW 2019, arXiv 1905.03375).

    Differs from the paper: the items of the row to be continued lose weight with their age (`recency`), which the paper, where rows
    are sets, does not know; 0 is the paper. With `rank` an item's weight to itself is cut off, and no other weight is fitted anew.
    """

    weights = part(closed_form, likeness=1.0, diagonal=0.0, ridge=100.0, recency=5.0)
