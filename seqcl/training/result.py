"""Ends of a run: a result, a signal, or a loss that is not finite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seqcl.training.state import Row


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """Result of `Trainer.fit`; the model holds the weights of `best_epoch`."""

    best: float | None  # the watched metric on validation; None without validation
    best_epoch: int  # 1-based; 0 without validation
    metrics: dict[str, float]  # all validation metrics of the best epoch
    epochs: int  # whole epochs trained
    steps: int
    seconds: float  # in fit, over all resumptions
    stopped: str  # "epochs", "patience" or "minutes"
    history: list[Row]


class Interrupted(Exception):
    """SIGINT or SIGTERM ended a run.

    Its own message says where the run stopped and where it was saved. Whoever speaks to the user says how to go on,
    from `where` and `folder`.

    Args:
        signal: name of the signal, such as "SIGINT".
        epoch: the epoch under way, 1-based; None if the signal came outside the loop.
        step: updates done; None if the signal came outside the loop.
        folder: folder to resume; a run of several stages puts in the folder of the whole. None if nothing is kept.
        checkpoint: the file that holds the step; None if none was written.
    """

    def __init__(
        self,
        *,
        signal: str,
        epoch: int | None = None,
        step: int | None = None,
        folder: Path | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        self.signal, self.epoch, self.step = signal, epoch, step
        self.folder, self.checkpoint = folder, checkpoint
        super().__init__(signal)

    @property
    def where(self) -> str:
        """The place in words: "stopped by SIGINT in epoch 2 after step 9"."""
        place = "" if self.epoch is None else f" in epoch {self.epoch} after step {self.step}"
        return f"stopped by {self.signal}{place}"

    def __str__(self) -> str:
        if self.checkpoint is not None:
            return f"{self.where}; saved in {self.checkpoint}"
        if self.folder is not None:
            return f"{self.where}; the run folder is {self.folder}"
        return f"{self.where}; nothing was saved, as the run has no folder"
