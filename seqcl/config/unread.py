"""Options that were given though nothing reads them."""

from __future__ import annotations

from seqcl.config.experiment import Experiment
from seqcl.config.messages import located
from seqcl.config.settings import Settings
from seqcl.errors import UserError

NEEDS = {
    "new_items": ("warm_start", "", "says how items that an earlier run lacks begin; give --warm_start RUN"),
    "eval.sampled": (
        "eval.candidates",
        "full",
        "is for sampled candidates, and all items are ranked; give --eval.candidates uniform or popularity",
    ),
    "eval.seed": (
        "eval.candidates",
        "full",
        "draws sampled candidates, and all items are ranked; give --eval.candidates uniform or popularity, or --seed",
    ),
    "pretrain.lr": ("pretrain.epochs", 0, "is for pre-training; give --pretrain.epochs, such as 20"),
    "pretrain.batch_size": ("pretrain.epochs", 0, "is for pre-training; give --pretrain.epochs, such as 20"),
}
"""Options, each with the one by which it is read, the value under which it is not, and what to say."""


def refuse_unread(experiment: Experiment, settings: Settings) -> None:
    """Refuse options that do nothing.

    A file may hold one beside the option that turns it off, or build on a file that does; what is typed is for this run.

    Args:
        experiment: what was made of the settings.
        settings: all that was given.

    Raises:
        UserError: names the option and what it needs.
    """
    for key, (switch, off, told) in NEEDS.items():
        if key not in settings or experiment.flat.get(switch) != off:
            continue
        if settings[key].typed or switch not in settings:
            raise located(UserError(f"--{key} {experiment.flat[key]}: {told}"), settings[key].place)
