"""Training: the only loop, its options, checkpoints and history."""

from seqcl.training.checkpoint import CheckpointError, load_checkpoint, load_weights, save_checkpoint
from seqcl.training.clock import Clock
from seqcl.training.protocols import Loader, Trainable, Validate
from seqcl.training.random_states import kept_random_states
from seqcl.training.result import Diverged, FitResult, Interrupted
from seqcl.training.saver import last_checkpoint
from seqcl.training.state import Row
from seqcl.training.trainer import Trainer

__all__ = [
    "CheckpointError",
    "Clock",
    "Diverged",
    "FitResult",
    "Interrupted",
    "Loader",
    "Row",
    "Trainable",
    "Trainer",
    "Validate",
    "kept_random_states",
    "last_checkpoint",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
]
