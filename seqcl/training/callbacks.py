"""Callbacks: whoever is told of a run as it goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seqcl.training.state import Row


class Callback:
    """Is told of the run of one model; a subclass overrides what it wants to hear.

    What it raises ends the run, which can go on with --resume.
    """

    def begin(self, folder: Path, options: Mapping[str, Any]) -> None:
        """Hear that the run begins or goes on: its folder, and all its options by dotted name."""

    def epoch(self, row: Row) -> None:
        """Hear the row of an epoch that is done, and validated if it was due; the best one so far is saved by then."""

    def end(self, metrics: Mapping[str, float] | None) -> None:
        """Hear that the run is over.

        Args:
            metrics: those of the best epoch, such as best/ndcg@10 (of validation) and test/ndcg@10; None if the run stopped early.
        """


@contextmanager
def telling(callbacks: Sequence[Callback], folder: Path, options: Mapping[str, Any]) -> Iterator[dict[str, float]]:
    """Inside, a run goes on; callbacks hear of its begin and its end, with the metrics that were put into the dictionary."""
    metrics: dict[str, float] = {}
    told: list[Callback] = []
    try:
        for one in callbacks:
            told.append(one)
            one.begin(folder, options)
        yield metrics
    except BaseException:
        metrics.clear()
        raise
    finally:
        for one in told:
            one.end(metrics or None)
