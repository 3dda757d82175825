"""From an `Experiment` to a filled run folder, and from a run folder back to a model that can be asked."""

from seqcl.experiment.job import training_batches
from seqcl.experiment.pipeline import execute, train
from seqcl.experiment.run import Run, load

__all__ = ["Run", "execute", "load", "train", "training_batches"]
