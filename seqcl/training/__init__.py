"""Training: the only loop, its options, checkpoints and history."""

from seqcl.training.checkpoint import CheckpointError, load_checkpoint, load_weights, save_checkpoint
from seqcl.training.fit import Trainer
from seqcl.training.history import Row
from seqcl.training.keep import last_checkpoint
from seqcl.training.state import Diverged, FitResult, Interrupted, Loader, Validate

__all__ = [
    "CheckpointError",
    "Diverged",
    "FitResult",
    "Interrupted",
    "Loader",
    "Row",
    "Trainer",
    "Validate",
    "last_checkpoint",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
]
