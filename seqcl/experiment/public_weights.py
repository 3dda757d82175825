"""Weights that others have published, as a SASRec of ours, ranked by our protocol or as their authors rank."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from seqcl import encoders
from seqcl.data import Interactions, Preparation, Sequences, load
from seqcl.data.packing import distinct_rows
from seqcl.encoders.sasrec import Activation
from seqcl.errors import UserError, brief, check_choice, refuse_infinite_weights
from seqcl.evaluation import Evaluator, rank_as_published
from seqcl.experiment.ranking import Part, full_protocol, queries_of, rank, slices_of, windows_of
from seqcl.experiment.torch_file import read_tensors
from seqcl.models.sasrec import SASRec
from seqcl.objectives import NextItem
from seqcl.parts import part
from seqcl.types import Windows

Format = Literal["coserec", "iclrec", "icsrec", "recbole"]
"""Whose code wrote a file. The first three name their weights as S3-Rec does, RecBole as its SASRec does."""

SeenItems = Literal["exclude", "keep", "zero"]

ITEMS, PLACES = "item_embeddings.weight", "position_embeddings.weight"
WIDE = "item_encoder.layer.0.intermediate.dense_1.weight"

RENAMED = {
    "item_embedding.": "item_embeddings.",
    "position_embedding.": "position_embeddings.",
    "trm_encoder.": "item_encoder.",
    "multi_head_attention.": "attention.",
    "feed_forward.": "intermediate.",
}
"""RecBole's names, and those of S3-Rec for the same."""

BLOCK = {
    "attention.query": ("attention.query",),
    "attention.key_value": ("attention.key", "attention.value"),
    "attention.output": ("attention.dense",),
    "attention_norm": ("attention.LayerNorm",),
    "widen": ("intermediate.dense_1",),
    "narrow": ("intermediate.dense_2",),
    "feed_norm": ("intermediate.LayerNorm",),
}
"""Our names of the parts of a block, and S3-Rec's; where these are two, ours is both of them, one above the other."""


def with_common_names(tensors: Mapping[str, Tensor], path: Path, form: Format) -> dict[str, Tensor]:
    """Name weights as S3-Rec does.

    Raises:
        UserError: they are of another model: a weight that gives a size is not there.
        Diverged: a weight is not finite.
    """
    refuse_infinite_weights(tensors, path)
    found = dict(tensors)
    if form == "recbole":
        for theirs, other in RENAMED.items():
            found = {name.replace(theirs, other): one for name, one in found.items()}
    for name in (ITEMS, PLACES, WIDE):
        if name not in found or found[name].dim() != 2:
            raise UserError(
                f"{path} is no SASRec of --format {form}: it has no {name}, but {brief(', '.join(tensors))}"
            )
    return found


def item_rows(sequences: Sequences, form: Format, log: Interactions | None) -> np.ndarray:
    """The row of each item in the table of the file, (N,): its raw id, or with RecBole its turn in the file of interactions.

    Raises:
        UserError: a raw id is no number, or the order in which RecBole met the items cannot be told.
    """
    ids = sequences.item_ids
    if form != "recbole":
        if ids.dtype.kind != "i":
            raise UserError(f"--format {form}: items are the rows of a table there, and {str(ids[0])!r} is no number")
        return np.array(ids)
    assert log is not None
    known = np.isin(log.user_ids, sequences.user_ids)[log.users] & np.isin(log.item_ids, ids)[log.items]
    met = np.flatnonzero(known)
    if sequences.duplicates != "keep":
        met = without_repeats(log, met, last=sequences.duplicates == "last")
    _, first = np.unique(log.items[met], return_index=True)  # by code, which has the order of the ids
    rows = np.empty(len(ids), np.int64)
    rows[np.argsort(first)] = np.arange(1, len(ids) + 1)
    return rows


def without_repeats(log: Interactions, rows: np.ndarray, *, last: bool) -> np.ndarray:
    """The rows that are left of these, in RecBole's order: it sorts the log by time before it removes repeats.

    Raises:
        UserError: two items come first at one time, and RecBole's sort keeps no order among such rows.
    """
    times = log.times
    if times is not None:
        rows = rows[np.argsort(times[rows], kind="stable")]
    rows = rows[distinct_rows(log.users[rows], log.items[rows], len(log.item_ids), last=last)]
    if times is not None:
        begins = times[rows[np.unique(log.items[rows], return_index=True)[1]]]
        if shared := len(begins) - len(np.unique(begins)):
            raise UserError(
                f"--format recbole with --data.duplicates: {shared:,} of {len(begins):,} items come first at the same time as "
                "another; RecBole sorts by time before it removes repeats, so which row is whose cannot be told"
            )
    return rows


def public_model(
    tensors: Mapping[str, Tensor],
    train: Windows,
    rows: np.ndarray,
    path: Path,
    *,
    form: Format,
    heads: int = 2,
    activation: Activation = "gelu",
) -> SASRec:
    """Make the model of published weights, in eval().

    Their SASRec has layer norms after each part with 1e-12 in the root, positions from the end of a row (RecBole: from its
    start), and ranks by inner products.

    Args:
        tensors: the weights by the names of S3-Rec.
        train: the training windows of the data that they were learned from.
        rows: (N,) the row of each item in their table.
        path: the file, for messages.
        form: whose names they are.
        heads: attention heads, of which the weights say nothing.
        activation: of the feed-forward part, of which they say nothing either.

    Raises:
        UserError: they are of another model, or of other data.
    """
    given = dict(tensors)
    check_items(given[ITEMS], rows, path, form)
    table, place = given.pop(ITEMS), given.pop(PLACES)
    dim = table.shape[1]
    layers = len({found[1] for name in given if (found := re.search(r"\.layer\.(\d+)\.", name))})
    encoder = part(
        encoders.SASRec,
        dim=dim,
        layers=layers,
        heads=heads,
        dropout=0.0,
        norm="post",
        positions="start" if form == "recbole" else "end",
        activation=activation,
        hidden=given[WIDE].shape[0] // dim,
        norm_eps=1e-12,
    )
    model = SASRec(train, encoder=encoder, next_item=part(NextItem, similarity="dot", temperature=1.0))
    state = {"place": place if form == "recbole" else place.flip(0)}
    state["table.weight"] = torch.zeros(train.num_items + 2, dim)
    state["table.weight"][1:-1] = table[torch.from_numpy(rows)]
    state["table.weight"][0] = table[0]  # the padding, which their code ranks too, and the MASK
    if len(table) == train.num_items + 2:
        state["table.weight"][-1] = table[-1]
    try:
        for kind in ("weight", "bias"):
            state[f"edge_norm.{kind}"] = given.pop(f"LayerNorm.{kind}")
            for layer in range(layers):
                for ours, theirs in BLOCK.items():
                    names = [f"item_encoder.layer.{layer}.{name}.{kind}" for name in theirs]
                    state[f"blocks.{layer}.{ours}.{kind}"] = torch.cat([given.pop(name) for name in names])
        if given:
            raise UserError(f"{path} has the weight {min(given)}, which a SASRec has not: it is of another model")
        model.encoder.load_state_dict(state)
    except KeyError as error:
        raise UserError(f"{path} lacks the weight {error.args[0]}: it is of another model") from None
    except RuntimeError as error:
        raise UserError(f"{path} is of another model: {brief(str(error).partition(':')[2])}") from None
    return model.eval()


def check_items(table: Tensor, rows: np.ndarray, path: Path, form: Format) -> None:
    """Refuse a table of other items: it has a row for the padding and each item, and, where anything is masked, for the MASK."""
    items = len(rows)
    if not table.shape[1]:
        raise UserError(f"{path} is no SASRec: its items have no dimension")
    known = (items + 1, items + 2) if form == "recbole" else (items + 2,)
    if len(table) not in known or (rows.min(), rows.max()) != (1, items):
        raise UserError(
            f"{path} was made from other data: its table has {len(table):,} rows, and the data has {items:,} items, with ids "
            f"from {rows.min():,} to {rows.max():,}"
        )


def evaluate_public(
    path: Path,
    form: Format,
    dataset: str,
    *,
    part: Part = "test",
    seen: SeenItems = "exclude",
    heads: int = 2,
    activation: Activation = "gelu",
    slices: bool = False,
    **data: Any,
) -> dict[str, Any]:
    """Rank published weights on a data set, split as leave-one-out.

    Args:
        path: the file.
        form: whose code wrote it.
        dataset: the data that they were learned from, a name or a path.
        part: valid or test.
        seen: exclude, a user's earlier items are no candidates; keep, they are; zero, they score 0 and padding and MASK are
            candidates too, which is how the first three formats publish.
        heads: attention heads.
        activation: of the feed-forward part.
        slices: also by history length and target popularity.
        data: options of `Preparation` on how the data is read.

    Raises:
        UserError: a file or the data cannot be read, or they do not belong together.
    """
    check_choice("value of --format", form, Format)
    check_choice("value of --seen", seen, SeenItems)
    if form == "recbole" and seen == "zero":
        raise UserError(
            "--seen zero is how the code of CoSeRec, ICLRec and ICSRec ranks; RecBole's ranks with --seen keep"
        )
    tensors = with_common_names(read_tensors(path, recbole=form == "recbole"), path, form)
    preparation = Preparation(max_len=len(tensors[PLACES]), **data)
    log = load(dataset, **preparation.read_options()) if form == "recbole" else None
    sequences = preparation.sequences(log or dataset)
    split = preparation.split_windows(sequences)
    rows = item_rows(sequences, form, log)
    model = public_model(tensors, split.train, rows, path, form=form, heads=heads, activation=activation)
    evaluator, windows = Evaluator(exclude_seen=seen == "exclude"), windows_of(split, part)
    batches = queries_of(windows, evaluator, torch.device("cpu"))
    if seen == "zero":
        with torch.no_grad():
            others = model.encoder.item_embeddings()[[0, -1]]
        result = rank_as_published(windows, batches, model, others, ks=evaluator.ks)
    else:
        result = rank(model, split, part, evaluator, torch.device("cpu"))
    protocol = full_protocol(result, sequences, split, seed=0)
    for fact in ("seed", "windows"):  # of training, which was not ours
        del protocol[fact]
    found = {"checkpoint": path.name, "format": form, "part": part, "protocol": protocol, "metrics": result.metrics}
    return found | ({"slices": slices_of(result, split, part, evaluator)} if slices else {})
