"""Experiments made from others: a grid's layers of settings, and the same experiment without its contrast."""

from __future__ import annotations

from collections.abc import Sequence

from seqcl.config.experiment import Experiment
from seqcl.config.resolving import build, merge
from seqcl.config.schema import SHARED, recipe_sections
from seqcl.config.settings import Setting, Settings
from seqcl.errors import UserError
from seqcl.models import MODELS, Recommender
from seqcl.parts import declared, options_of


def layered(layers: Sequence[Settings]) -> Experiment:
    """The experiment of several layers of settings, of which later ones win.

    Raises:
        UserError: an unknown name, or a value that does not fit.
    """
    return build(merge(layers)[0])


def fitting(shared: Settings, layers: Sequence[Settings]) -> Settings:
    """Those of the shared settings that the model of some layers has a place for."""
    sections = {section.name: section.component for section in recipe_sections(merge(layers)[0])}
    everywhere = {"", *(section.name for section in SHARED)}
    found = {}
    for key, setting in shared.items():
        section, _, option = key.rpartition(".")
        known = section in sections and (option == "name" or option in options_of(sections[section]))
        if section in everywhere or known:
            found[key] = setting
    return found


def without_contrast(of: Experiment) -> Experiment | None:
    """The same experiment without its contrastive term, all else being equal; None where it has none.

    The recipe's `contrast_off` says how. Where that names no option, the plain recipe of the encoder is left, such as SASRec for
    CL4Rec: encoder, next item, training and all else are those of `of`.

    Raises:
        UserError: a recipe of one's own that is no plain one without its term, and does not say what it is then.
    """
    off: Sequence[str] | None = getattr(of.recipe.model, "contrast_off", None)
    if off is None or (off and not any(of.flat[key] for key in off)):
        return None
    if off:
        return build({key: Setting(value) for key, value in {**of.flat, **dict.fromkeys(off, 0)}.items()})
    plain = plain_recipe(of)
    sections = {"", "data", "train", "eval", *declared(MODELS[plain])}
    kept = {key: Setting(value) for key, value in of.flat.items() if key.rpartition(".")[0] in sections}
    return build({**kept, "model": Setting(plain)})


def plain_recipe(of: Experiment) -> str:
    """The name of the recipe that has the encoder of an experiment and learns the next item alone."""
    model, parts = of.recipe.model, of.recipe.parts
    encoder, next_item = parts["encoder"].component, parts["next_item"].component
    as_usual = model.make_encoder is Recommender.make_encoder and model.more_items == 0
    if not as_usual or next_item is not declared(Recommender)["next_item"].component:
        raise UserError(
            f"{of.options.model} differs from the plain recipes in more than its objectives: name in its contrast_off "
            'the options that are 0 where the contrast is out, such as ("objective.weight",), or None'
        )
    usual = declared(Recommender)
    plain = {name: declared(recipe) for name, recipe in MODELS.items() if issubclass(recipe, Recommender)}
    same = (
        name
        for name, own in plain.items()
        if own.keys() == usual.keys() and own["distil"] is usual["distil"] and own["encoder"].component is encoder
    )
    return next(same, "SASRec")
