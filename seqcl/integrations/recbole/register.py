"""Registers every recipe as a class of RecBole's, found by its name."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from seqcl.integrations.recbole.recommender import RecBoleRecommender
from seqcl.models import MODELS, Blend, Recommender

PREFIX = "Seqcl"
"""Goes before the name of a recipe where RecBole has a model of that name."""


def theirs() -> set[str]:
    """The names of RecBole's own models, in small letters: each has a file of settings."""
    root = importlib.util.find_spec("recbole")
    assert root is not None and root.submodule_search_locations is not None
    return {file.stem.lower() for file in Path(root.submodule_search_locations[0]).glob("properties/model/*.yaml")}


def recommender(name: str, recipe: str) -> type[RecBoleRecommender]:
    """The RecBole class of a recipe."""
    about = f"{(inspect.getdoc(MODELS[recipe]) or '').splitlines()[0]}\n\nThe recipe {recipe} of seqcl as a model of RecBole."
    # A checkpoint of RecBole holds its configuration, and this the class: it is found again in the package.
    return type(name, (RecBoleRecommender,), {"recipe": recipe, "__doc__": about, "__module__": __package__})


TAKEN = theirs()
RECOMMENDERS: dict[str, type[RecBoleRecommender]] = {}
"""The classes by the name that `run_recbole(model=...)` takes."""

for _recipe, _kind in MODELS.items():
    if issubclass(_kind, Recommender) and _kind is not Blend:  # which is chosen on validation after RecBole's training
        _name = PREFIX + _recipe if _recipe.lower() in TAKEN else _recipe
        RECOMMENDERS[_name] = recommender(_name, _recipe)


def register() -> None:
    """Put each class where RecBole looks for a model: in a module of `recbole.model.sequential_recommender` named after it."""
    for name, kind in RECOMMENDERS.items():
        path = f"recbole.model.sequential_recommender.{name.lower()}"
        module = ModuleType(path, f"{name} of seqcl, put here by seqcl.integrations.recbole.")
        module.__spec__ = ModuleSpec(path, None)
        setattr(module, name, kind)
        sys.modules[path] = module
