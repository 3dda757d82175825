"""V-SKNN: SKNN in which newer items count more."""

from __future__ import annotations

from seqcl.models.neighbours import NearestRows, SessionKNN
from seqcl.parts import part


class VSKNN(SessionKNN):
    """Items of the training rows that share the newest items with the row (Ludewig and Jannach 2018, arXiv 1803.09587).

    With the score of a neighbour by its newest shared item, and rarer items ahead, as in the authors' later comparison
    (arXiv 1910.12781).

    Differs from the paper: as SKNN; cosine instead of the inner product (`rows.similarity` dot).
    """

    rows = part(NearestRows, emphasis=1.0, fade=1.0, idf=1.0)
