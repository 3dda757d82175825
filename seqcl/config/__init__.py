"""From words, YAML files and Python values to one frozen, typed `Experiment`."""

from seqcl.config.experiment import Experiment, Model, Options, Recipe
from seqcl.config.resolving import baseline, experiment, of_run, recipe, resolve
from seqcl.config.variants import without_contrast

__all__ = [
    "Experiment",
    "Model",
    "Options",
    "Recipe",
    "baseline",
    "experiment",
    "of_run",
    "recipe",
    "resolve",
    "without_contrast",
]
