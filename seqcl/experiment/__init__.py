"""The one place that knows all rooms: configuration -> data -> model -> training -> evaluation -> run folder."""

from seqcl.experiment.folder import to_yaml
from seqcl.experiment.options import SHARED, Options, Preparation, resolve, resolve_resumed
from seqcl.experiment.run import Run, execute, train
from seqcl.experiment.trial import build, training_batches

__all__ = [
    "SHARED",
    "Options",
    "Preparation",
    "Run",
    "build",
    "execute",
    "resolve",
    "resolve_resumed",
    "to_yaml",
    "train",
    "training_batches",
]
