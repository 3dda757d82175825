"""Training: the only loop, its options, checkpoints and history."""

from seqcl.errors import Diverged
from seqcl.training.callbacks import Callback, telling
from seqcl.training.checkpoint import CheckpointError, load_checkpoint, load_weights, save_checkpoint
from seqcl.training.clock import Clock
from seqcl.training.compiled import check_compile
from seqcl.training.optimizer import check_clip
from seqcl.training.protocols import Loader, Trainable, Validate
from seqcl.training.random_states import kept_random_states
from seqcl.training.result import FitResult, Interrupted
from seqcl.training.saver import last_checkpoint
from seqcl.training.signals import Signals
from seqcl.training.state import Row
from seqcl.training.trackers import TRACKERS, make_trackers
from seqcl.training.trainer import Trainer

__all__ = [
    "TRACKERS",
    "Callback",
    "CheckpointError",
    "Clock",
    "Diverged",
    "FitResult",
    "Interrupted",
    "Loader",
    "Row",
    "Signals",
    "Trainable",
    "Trainer",
    "Validate",
    "check_clip",
    "check_compile",
    "kept_random_states",
    "last_checkpoint",
    "load_checkpoint",
    "load_weights",
    "make_trackers",
    "save_checkpoint",
    "telling",
]
