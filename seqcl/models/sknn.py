"""SKNN: the training rows most like a row say what comes next."""

from __future__ import annotations

from seqcl.models.neighbours import SessionKNN


class SKNN(SessionKNN):
    """Items of the training rows that share most items with the row, as sets (Jannach and Ludewig 2017;
    Ludewig and Jannach 2018, arXiv 1803.09587).

    Differs from the paper: a row is all that a user has, not a session, and the user's own row is no neighbour.
    """
