"""Splits made harder on purpose: items that training never meets, few users, items replaced by others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from seqcl.data.draws import draw_cold_items, draw_users, with_noise, without_items
from seqcl.data.sequences import Sequences
from seqcl.data.split import Split
from seqcl.data.windows import stretch_positions, training_windows
from seqcl.errors import UserError


def hold_out_items(split: Split, sequences: Sequences, fraction: float, *, seed: int = 0) -> Split:
    """Take a random fraction of the items out of the training log; validation and test keep them.

    A model can score such an item only by its features.

    Args:
        split: a split of the log.
        sequences: the log.
        fraction: fraction of the items, from 0 to below 1; 0 gives the split as it is.
        seed: decides which items; the same ones for every model.

    Raises:
        UserError: the fraction is out of range, or nothing is left to train on.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"cold_items must be from 0 to below 1, not {fraction}")
    if fraction == 0:
        return split
    cold = draw_cold_items(sequences.num_items, fraction, seed)
    rest, place = without_items(replace(sequences, items=split.train.items), cold)
    train = training_windows(
        rest, place[split.train.ends], max_len=split.protocol["max_len"], windows=split.protocol["windows"]
    )
    if not len(train):
        raise UserError(
            f"{sequences.name}: nothing to train on without {int(cold.sum())} of its {sequences.num_items} items"
        )
    protocol = split.protocol | {"cold_items": fraction, "cold_items_seed": seed}
    return Split(train=train, valid=split.valid, test=split.test, protocol=protocol)


def keep_users(split: Split, fraction: float, *, seed: int = 0) -> Split:
    """Train on a random fraction of the users; validation and test keep all of them.

    Args:
        split: a split of the log.
        fraction: fraction of the users, above 0 to 1; 1 gives the split as it is.
        seed: decides which users; the same ones for every model, and those of a smaller fraction are among them.

    Raises:
        UserError: the fraction is out of range, or nothing is left to train on.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"train_users must be above 0 and at most 1, not {fraction}")
    if fraction == 1:
        return split
    train = split.train
    trains = draw_users(train.num_users, fraction, seed)
    own = trains[train.users]
    if not own.any():
        raise UserError(
            f"nothing to train on: none of the {int(trains.sum()):,} users that train_users {fraction} keeps has a target"
        )
    train = replace(
        train,
        ends=np.where(trains, train.ends, train.offsets[:-1]),
        **{name: getattr(train, name)[own] for name in ("users", "start", "stop", "first")},
    )
    return replace(split, train=train, protocol=split.protocol | {"train_users": fraction, "train_users_seed": seed})


def add_noise(split: Split, fraction: float, *, seed: int = 0) -> Split:
    """Replace the items of a random fraction of the training interactions by others; no target of validation or test changes.

    They are noise in the log: validation and test meet them in the histories of their users.

    Args:
        split: a split of the log.
        fraction: fraction of the interactions that training may know, from 0 to below 1; 0 gives the split as it is.
        seed: decides which, and by what; the same for every model.

    Raises:
        UserError: the fraction is out of range, or the log has one item.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"noise must be from 0 to below 1, not {fraction}")
    if fraction == 0:
        return split
    train = split.train
    if train.num_items < 2:
        raise UserError("noise needs two items or more")
    places, _ = stretch_positions(train.offsets[:-1], train.ends)
    known = np.zeros(len(train.items), bool)
    known[places] = True
    items = with_noise(train.items, known, fraction, train.num_items, seed)
    return Split(
        train=replace(train, items=items),
        valid=replace(split.valid, items=items),
        test=replace(split.test, items=items),
        protocol=split.protocol | {"noise": fraction, "noise_seed": seed},
    )
