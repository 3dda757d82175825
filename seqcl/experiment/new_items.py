"""Items that nobody has had yet: two towers rank them by their features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from seqcl.data import Sequences, Split
from seqcl.data.cells import id_of
from seqcl.data.raw_ids import same_ids, such, whole_number
from seqcl.data.sequences import ARRAYS, OPTIONS, fingerprint
from seqcl.data.tables import read_table
from seqcl.encoders import Encoder, TwoTower
from seqcl.errors import UserError
from seqcl.experiment.folder import log
from seqcl.experiment.keeping import with_kept_files
from seqcl.experiment.warm import carry
from seqcl.models import Recommender
from seqcl.parts import Part
from seqcl.types import PAD

if TYPE_CHECKING:
    from seqcl.experiment.run import Run

NEAR = 1e-4
"""Difference of a vector of a known item that rounding can make."""


def with_new_items(run: Run, table: str | Path | None = None) -> Run:
    """The run with the items of its tables that its log lacks; they can be recommended, exported, and be in a history.

    Their vectors are made of their features alone. Nothing is trained, and no vector of another item changes.

    Args:
        run: a run of two towers that read features of items.
        table: today's table of items, in the place of the file of --features.item_table; it has the columns that the
            run learned from, for all items. None: the tables that the run keeps.

    Raises:
        UserError: the model knows items by their interactions alone, the table has no new item, or it says other
            things of those that the run knows.
    """
    model = run.model
    if (
        not isinstance(model, Recommender)
        or not isinstance(model.encoder, TwoTower)
        or not model.encoder.items_known.columns
    ):
        raise UserError(
            f"{run.folder}: {run.experiment.options.model} knows no features of items, so it cannot rank an item without "
            "interactions; TwoTower can, trained with --features.item_table"
        )
    experiment = with_kept_files(run.experiment, run.folder)
    if table is not None:
        recipe, features = experiment.recipe, experiment.recipe.parts["features"]
        own = {**recipe.parts, "features": Part(features.component, **{**features.options, "item_table": str(table)})}
        experiment = replace(experiment, recipe=replace(recipe, parts=own))
    file = experiment.recipe.parts["features"].options.get("item_table")
    frame = run.sequences.item_features
    source = str(file or f"the table of items of {run.sequences.name}")
    listed = [] if file is None else [id_of(raw) for raw in read_table(Path(file).expanduser(), "items")[0]]
    if table is not None and (same_ids(np.array(listed, np.str_), run.sequences.item_ids) < 0).all():
        raise UserError(
            f"{source}: it has none of the {run.sequences.num_items:,} items that the run knows; give a table of all items, "
            "those and the new ones"
        )
    sequences = with_items(run.sequences, [*(() if frame is None else frame.index), *listed], source)
    places = same_ids(run.sequences.item_ids, sequences.item_ids)
    split = renumbered(run.split, sequences, places + 1)
    made = experiment.build(split.train, fresh=False).to(run.device)
    assert isinstance(made, Recommender)
    try:
        carry(run, made, experiment, sequences, split.train, how="features")
    except UserError as error:
        assert isinstance(made.encoder, TwoTower)
        lost = [name for name in model.encoder.items_known.columns if name not in made.encoder.items_known.columns]
        odd = "" if file is None else odd_cell(Path(file).expanduser(), lost)
        raise UserError(f"{source}: {odd or error}") from None
    made.eval()
    check_known(run, model, made, places, source)
    say_unknown(made.encoder, sequences, places, source)
    return replace(
        run,
        experiment=experiment,
        sequences=sequences,
        split=split,
        model=made,
        new_items=None if file is None else Path(file).expanduser(),
    )


def odd_cell(file: Path, columns: Iterable[str]) -> str:
    """Say which cell of a table's columns is text where most are numbers; nothing where none is."""
    ids, cells = read_table(file, "items")
    for name in columns:
        words = [(raw, cell) for raw, cell in zip(ids, cells.get(name, ()), strict=False) if isinstance(cell, str)]
        odd = [(raw, cell) for raw, cell in words if not number(cell)]
        if 0 < 2 * len(odd) < len(words):
            raw, cell = odd[0]
            return (
                f"column {name!r} holds numbers, but {cell[:40]!r} for the item {raw}; write a number or leave it empty"
            )
    return ""


def number(text: str) -> bool:
    """True if a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def renumbered(split: Split, sequences: Sequences, ids: np.ndarray) -> Split:
    """The windows of a split over a log with more items; drawn anew, other items would be cold, and other places noise.

    Args:
        split: of the log without them.
        sequences: the log with them.
        ids: (N,) the id there of each item 1..N of the split.
    """
    place = np.concatenate(([PAD], ids)).astype(np.int32)
    parts = {"train": split.train, "valid": split.valid, "test": split.test}
    arrays = {id(one.items): one.items for one in parts.values()}  # parts share theirs
    items = {key: place[array] for key, array in arrays.items()}
    made = {
        name: replace(one, items=items[id(one.items)], num_items=sequences.num_items, tables=sequences.tables)
        for name, one in parts.items()
    }
    return replace(split, protocol=split.protocol | {"new_items": sequences.num_items - len(ids)}, **made)


def with_items(sequences: Sequences, raws: Iterable[Any], source: str) -> Sequences:
    """The log with more items, of which it has no interaction; a row without an id is no item.

    Raises:
        UserError: none of the ids is new, or one is no whole number where those of the log are.
    """
    texts = np.array(sorted({id_of(raw) for raw in raws} - {""}), np.str_)
    known = np.asarray(sequences.item_ids)
    if known.dtype.kind == "i":
        odd = np.array([not whole_number(text) for text in texts.tolist()], bool)
        if odd.any():
            raise UserError(
                f"{source}: ids of items are whole numbers in {sequences.name}{such(texts, np.flatnonzero(odd))} is none"
            )
    ids: np.ndarray = texts.astype(np.int64) if known.dtype.kind == "i" else texts
    new = ids[same_ids(ids, known) < 0]
    if not len(new):
        raise UserError(f"{source}: none of its {len(ids):,} items is new: {sequences.name} has interactions with all")
    together = np.unique(np.concatenate((known, new)))
    place = np.concatenate(([0], np.searchsorted(together, known) + 1)).astype(np.int32)
    arrays = {name: getattr(sequences, name) for name in (*ARRAYS, *OPTIONS)} | {
        "item_ids": together, "items": place[sequences.items],
    }  # fmt: skip
    return replace(sequences, **arrays, fingerprint=fingerprint(arrays), place=None)


@torch.no_grad()
def check_known(run: Run, before: Recommender, now: Recommender, places: np.ndarray, source: str) -> None:
    """Refuse a table that changes what the model knows of items: its words would mean others.

    Raises:
        UserError: counts and names these items.
    """
    ours = before.vectors()
    apart = (now.vectors()[torch.from_numpy(places).to(ours.device)] - ours).abs().amax(1)  # (N,)
    other = (apart > NEAR * ours.abs().max()).nonzero()[:, 0].cpu().numpy()
    if len(other):
        raise UserError(
            f"{source}: it says other things than the run learned of {len(other):,} of {len(ours):,} items"
            f"{such(run.sequences.item_ids, other)}; give the same table with more rows, or train again with --warm_start"
        )


def say_unknown(encoder: Encoder, sequences: Sequences, places: np.ndarray, source: str) -> None:
    """Warn of new items of which no feature is known: all of them have one vector, which may rank high."""
    assert isinstance(encoder, TwoTower)
    nothing = ~encoder.items_known.known[1:-1]  # (N,)
    nothing[places] = False
    if len(found := np.flatnonzero(nothing)):
        log.warning(
            "%s: the model knows no feature of %d of %d new items, so it ranks them all alike%s",
            *(source, len(found), sequences.num_items - len(places), such(sequences.item_ids, found)),
        )
