"""Options that were given though nothing reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seqcl.config.experiment import Experiment
from seqcl.config.messages import located
from seqcl.config.settings import Setting, Settings
from seqcl.errors import UserError

DRAWS = (
    "next_item.loss",
    ("softmax",),
    "is for a loss that draws negatives, and softmax takes all items; give --next_item.loss sampled_softmax",
)
NEEDS: dict[str, tuple[str, tuple[Any, ...], str]] = {
    "new_items": ("warm_start", ("",), "says how items that an earlier run lacks begin; give --warm_start RUN"),
    "eval.sampled": (
        "eval.candidates",
        ("full",),
        "is for sampled candidates, and all items are ranked; give --eval.candidates uniform or popularity",
    ),
    "eval.seed": (
        "eval.candidates",
        ("full",),
        "draws sampled candidates, and all items are ranked; give --eval.candidates uniform or popularity, or --seed",
    ),
    "pretrain.lr": ("pretrain.epochs", (0,), "is for pre-training; give --pretrain.epochs, such as 20"),
    "pretrain.batch_size": ("pretrain.epochs", (0,), "is for pre-training; give --pretrain.epochs, such as 20"),
    "next_item.negatives": DRAWS,
    "next_item.sampling": DRAWS,
    "next_item.shared": DRAWS,
    "next_item.correction": (
        "next_item.loss",
        ("softmax", "bce", "gbce", "bpr"),
        "corrects sampled_softmax alone; give --next_item.loss sampled_softmax",
    ),
    "next_item.t": (
        "next_item.loss",
        ("softmax", "sampled_softmax", "bce", "bpr"),
        "calibrates gbce alone; give --next_item.loss gbce",
    ),
}
"""Options, each with the one by which it is read, the values under which it is not, and what to say."""


def refuse_unread(experiment: Experiment, settings: Settings) -> None:
    """Refuse options that do nothing.

    A file may hold one beside the option that turns it off, or build on a file that does; what is typed is for this run.

    Args:
        experiment: what was made of the settings.
        settings: all that was given.

    Raises:
        UserError: names the option and what it needs.
    """
    for key, (switch, _, _) in NEEDS.items():
        if key in settings and unread(experiment, key) and (settings[key].typed or switch not in settings):
            raise refusal(key, settings[key])


def refuse_unread_by_all(experiments: Sequence[Experiment], settings: Settings) -> None:
    """Refuse options of several experiments that do nothing in any of them.

    Raises:
        UserError: names the option and what it needs.
    """
    for key in NEEDS.keys() & settings.keys():
        if all(unread(one, key) for one in experiments):
            raise refusal(key, settings[key])


def unread(experiment: Experiment, key: str) -> bool:
    """True if nothing reads an option of `NEEDS`."""
    switch, off, _ = NEEDS[key]
    return key not in experiment.flat or experiment.flat.get(switch) in off


def refusal(key: str, setting: Setting) -> UserError:
    """The mistake of an option that nothing reads, where it was given."""
    return located(UserError(f"--{key} {setting.value}: {NEEDS[key][2]}"), setting.place)
