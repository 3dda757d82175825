"""Tell a user before training: of targets that cannot be hit or are left out, and logs that teach little."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from seqcl import processes
from seqcl.config import Experiment
from seqcl.data import Sequences, Split
from seqcl.errors import UserError
from seqcl.evaluation import Evaluator
from seqcl.evaluation.ranks import seen_before
from seqcl.experiment.folder import log
from seqcl.mapped import stretches

WORTH_A_LINE = 0.02
"""Share of targets that cannot be hit above which a warning says so."""

WORTH_A_QUESTION = 0.2
"""Share above which a run stops, unless the user has decided about seen items."""

FEW = 100
"""Targets below which it may be chance that none was seen before."""

NAMES = {"valid": "validation", "test": "test"}


def speak(experiment: Experiment, sequences: Sequences, split: Split) -> None:
    """Warn of what the protocol will do to the figures, before anything is trained.

    Raises:
        UserError: the log has one item; or many targets cannot be hit, and whether seen items are excluded was not given.
    """
    if sequences.num_items < 2:
        raise UserError(
            f"{sequences.name}: the log has one item alone, so there is nothing to rank; it needs two or more"
        )
    say_twice(sequences)
    check_reach(experiment, sequences, split)
    say_kept(experiment.eval, sequences, split)
    say_left_out(split)
    say_ks(experiment.eval, sequences)
    if all_alike(sequences):
        log.warning(
            "%s: all %d users have the same items in the same order, so they teach no more than one of them",
            sequences.name,
            sequences.num_users,
        )


def say_twice(sequences: Sequences) -> None:
    """Warn of interactions with the user, item and time of the one before: a target is then the newest item of its own history."""
    times, twice = sequences.times, 0
    if times is None:
        return
    for users, begin, end in stretches(sequences.offsets):
        items, when = sequences.items[begin:end], times[begin:end]
        same = (items[1:] == items[:-1]) & (when[1:] == when[:-1])
        same[sequences.offsets[users][1:] - begin - 1] = False  # the next user begins there
        twice += int(same.sum())
    if twice:
        log.warning(
            "%s: %s of %s interactions have the user, item and time of the one before; --data.duplicates first keeps one of a "
            "user's repeats of an item",
            *(sequences.name, f"{twice:,}", f"{len(sequences.items):,}"),
        )


def check_reach(experiment: Experiment, sequences: Sequences, split: Split) -> None:
    """Warn of targets that a user has seen before, where seen items are excluded; stop if they are many and nobody decided.

    Raises:
        UserError: names both values of the option.
    """
    for part, windows in (("test", split.test), ("valid", split.valid)):
        missed = experiment.eval.unreachable(windows)
        share = missed / max(len(windows), 1)  # a run may leave the test part alone
        if share <= WORTH_A_LINE:
            continue
        text = (
            f"{sequences.name}: {missed:,} of {len(windows):,} {NAMES[part]} targets ({share:.1%}) are items that their "
            f"user has seen before; excluded, they can never be hit"
        )
        if share > WORTH_A_QUESTION and "eval.exclude_seen" not in experiment.given:
            raise UserError(f"{text}. Choose: --eval.exclude_seen false (rank them) or true (count them as missed)")
        log.warning("%s, and no figure can be above %.4f; --eval.exclude_seen false ranks them", text, 1 - share)


def say_kept(evaluator: Evaluator, sequences: Sequences, split: Split) -> None:
    """Warn of seen items that are candidates where no target is one: they take places in the lists and are never right."""
    windows = split.test if len(split.test) else split.valid
    if evaluator.exclude_seen or evaluator.candidates != "full" or len(windows) < FEW or seen_before(windows).any():
        return
    log.warning(
        "%s: seen items are kept as candidates, but none of %s targets is an item that its user has seen before; "
        "--eval.exclude_seen true leaves them out",
        sequences.name,
        f"{len(windows):,}",
    )


def say_left_out(split: Split) -> None:
    """Warn of targets that a temporal split leaves out, and name the options that keep them."""
    for part, found in split.protocol.get("left_out", {}).items():
        reasons = []
        if found["cold"]:
            reasons.append(f"{found['cold']:,} are items that training never saw (--data.cold true keeps them)")
        if found["no_history"]:
            keeps = "" if split.protocol["targets"] == "all" else " (--data.targets all keeps what follows them)"
            reasons.append(f"{found['no_history']:,} have nothing before them{keeps}")
        if reasons:
            text = "the temporal split leaves out %s of %s %s targets, and %s of %s users: %s"
            counts = (f"{found[name]:,}" for name in ("targets", "of_targets"))
            users = (f"{found[name]:,}" for name in ("users", "of_users"))
            log.warning(text, *counts, NAMES[part], *users, "; ".join(reasons))


def say_ks(evaluator: Evaluator, sequences: Sequences) -> None:
    """Warn of lists as long as the candidates, in which every target that can be hit is one."""
    full = evaluator.candidates == "full"
    most = sequences.num_items if full else min(evaluator.sampled + 1, sequences.num_items)
    long = [k for k in evaluator.ks if k >= most]
    if long:
        log.warning(
            "%s: a list of %s holds all %d candidates, so every target that can be hit is in it; lower --eval.ks",
            sequences.name,
            " or ".join(str(k) for k in long),
            most,
        )


def all_alike(sequences: Sequences) -> bool:
    """True if every user has the same items in the same order."""
    sizes = np.diff(sequences.offsets)
    if (sizes != sizes[0]).any():
        return False
    first = sequences.row(0)
    parts = (sequences.items[begin:end].reshape(-1, sizes[0]) for _, begin, end in stretches(sequences.offsets))
    return all((part == first).all() for part in parts)


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Inside, show the warnings of seqcl on stderr too, unless the program shows its log there already."""
    handler = logging.StreamHandler() if processes.is_first() else logging.NullHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("seqcl: %(message)s"))
    shown = any(type(one) is logging.StreamHandler for one in (*log.handlers, *logging.getLogger().handlers))
    if not shown:
        log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
