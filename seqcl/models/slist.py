"""SLIST: weights between items in closed form, from what comes together and from what follows."""

from __future__ import annotations

from seqcl.models.linear import Linear, closed_form
from seqcl.parts import part


class SLIST(Linear):
    """Items by ridge regression on those before them, and on those of the same row (Choi et al., WWW 2021, arXiv 2103.16104).

    `weights.likeness` 0 is their SLIT, 1 with `weights.diagonal` their SLIS.

    Differs from the paper: rows are not weighed by their age, and an item that comes twice before a split counts twice. From the
    authors' code: a past is not scaled to sum 1, so long rows count for more; all items before a split are its past, where most of their
    files take the last alone (`weights.decay` near 0); of an item that a row has twice, the newest alone counts in its scores.
    """

    weights = part(closed_form, likeness=0.2)
