"""Objectives: stateful wholes that turn an encoder and a batch into named losses."""

from seqcl.objectives.base import Joint, Objective, rng
from seqcl.objectives.heads import projection
from seqcl.objectives.next_item import NextItem
from seqcl.objectives.two_views import TwoViews

OBJECTIVES: dict[str, type[Objective]] = {"NextItem": NextItem, "TwoViews": TwoViews}
"""Every objective by the name that configurations use."""

__all__ = ["OBJECTIVES", "Joint", "NextItem", "Objective", "TwoViews", "projection", "rng"]
