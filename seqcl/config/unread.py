"""Options that were given though nothing reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seqcl.config.experiment import Experiment
from seqcl.config.messages import located
from seqcl.config.settings import Setting, Settings
from seqcl.errors import UserError
from seqcl.models.blend import MEMORIES, MOST

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

MEMORY_OF = {name.lower(): name for name in MEMORIES}
"""The memory of a blend whose options a section has."""

Unread = tuple[Sequence[str], str]
"""The options by which one would be read, and what to say."""


def refuse_unread(experiment: Experiment, settings: Settings) -> None:
    """Refuse options that do nothing.

    A file may hold one beside the option that turns it off, or build on a file that does; what is typed is for this run.

    Args:
        experiment: what was made of the settings.
        settings: all that was given.

    Raises:
        UserError: names the option and what it needs.
    """
    for key, setting in settings.items():
        found = unread(experiment, key)
        if found and (setting.typed or not any(switch in settings for switch in found[0])):
            raise refusal(key, setting, found)


def refuse_unread_by_all(experiments: Sequence[Experiment], settings: Settings) -> None:
    """Refuse options of several experiments that do nothing in any of them.

    Raises:
        UserError: names the option and what it needs.
    """
    for key, setting in settings.items():
        found = [unread(one, key) for one in experiments]
        if found and found[0] and all(found):
            raise refusal(key, setting, found[0])


def unread(experiment: Experiment, key: str) -> Unread | None:
    """Tell what an option needs if nothing reads it; None where it is read."""
    flat = experiment.flat
    if key not in NEEDS:
        return unread_memory(flat, key)
    switch, off, what = NEEDS[key]
    return ((switch,), what) if key not in flat or flat.get(switch) in off else None


def unread_memory(flat: Mapping[str, Any], key: str) -> Unread | None:
    """The same for an option of a memory beside a blend."""
    memory = MEMORY_OF.get(key.partition(".")[0])
    if memory is None or "blend.memories" not in flat or memory in flat["blend.memories"]:
        return None
    if memory == "SLIST" and flat["blend.neighbours"]:
        return None
    also = ", or --blend.neighbours above 0" if memory == "SLIST" else ""
    others = flat["blend.memories"][: MOST - 1]
    names = ",".join([*others, memory])
    what = f"is of a memory that this blend does not have; give --blend.memories [{names}]{also}"
    return ("blend.memories", "blend.neighbours"), what


def refusal(key: str, setting: Setting, found: Unread) -> UserError:
    """The mistake of an option that nothing reads, where it was given."""
    return located(UserError(f"--{key} {setting.value}: {found[1]}"), setting.place)
