"""RecBole's sequential models as encoders: `--encoder recbole:NARM`, under any recipe, with the options of RecBole's own file.

Such a model gives one state for a whole row, so it learns from rows with one target each: `--data.windows prefix`.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.encoders import Encoder
from seqcl.encoders.table import at_least_one
from seqcl.errors import UserError, unknown
from seqcl.integrations.recbole_properties import check_values, constructor, document, options_of, properties, width_key
from seqcl.integrations.recbole_stack import bring
from seqcl.types import PAD, SeqBatch

ITEM, USER = "item_id", "user_id"
INPUTS = ("item_seq", "seq_item", "item_seq_len", "seq_item_len", "user")
"""The arguments that a forward pass may ask for."""


class RecBoleEncoder(Encoder):
    """A sequential model of RecBole as an encoder; the table of items and all weights are the model's own.

    Rows are padded to the longest, as RecBole does: some of its models count the padding. A model that asks for a user gets
    the same user for all rows, since an encoder knows none. A model that puts a MASK behind the row keeps the whole row.
    """

    one_pass = False
    kind: ClassVar[type]
    defaults: ClassVar[dict[str, Any]]
    asks: ClassVar[list[str]]

    def __init__(self, *, num_items: int, max_len: int, dim: int | None = None, **options: Any) -> None:
        at_least_one(max_len=max_len)
        super().__init__(num_items=num_items, max_len=max_len, dim=0)  # the width is known once the model is built
        name, self.width = type(self).__name__, max_len
        check_values(name, options, self.defaults)
        key = width_key(self.defaults)
        width = options.get(key)
        if None not in (dim, width) and dim != width:
            raise UserError(f"{name}: encoder.dim={dim} and encoder.{key}={width} are two names of one width: give one")
        width = next((value for value in (dim, width) if value is not None), self.defaults.get(key))
        settings = {**self.defaults, **options, key: width}
        self.model = built(name, self.kind, settings, rows=num_items + 2, max_len=max_len)
        if not isinstance(getattr(self.model, "item_embedding", None), nn.Embedding):
            raise UserError(f"{name} cannot be an encoder: it has no table of items that scores are made with")
        self.masks = hasattr(self.model, "mask_token")
        if self.masks:  # it adds the row of the MASK itself, and a place for it is needed behind the longest row
            self.width = max_len + 1
            self.model = built(name, self.kind, settings, rows=num_items + 1, max_len=self.width)
        table = self.model.item_embedding
        table.padding_idx = PAD  # RecBole's initial weights fill the row, and some of its models let it learn
        with torch.no_grad():
            table.weight[PAD] = 0
        self.dim = table.embedding_dim
        at_least_one(dim=self.dim)
        with buildable(name):
            self.check()

    def check(self) -> None:
        """Raise UserError unless the model gives a state of the items' width."""
        name, training = type(self).__name__, self.training
        rows = self.model.item_embedding.num_embeddings
        if rows != self.num_items + 2:
            raise UserError(
                f"{name}: its table has {rows} rows, not one for each of {self.num_items} items, PAD and MASK"
            )
        self.eval()
        with torch.no_grad():
            found = tuple(self.last(SeqBatch(torch.tensor([[1]]), torch.tensor([1]))).shape)
        self.train(training)
        if found != (1, self.dim):
            raise UserError(
                f"{name}: its forward pass gives {found} for one row, not a state as wide as an item: (1, {self.dim})"
            )

    def item_embeddings(self) -> Tensor:
        """The tied table (N + 2, D)."""
        return self.model.item_embedding.weight

    def forward(self, batch: SeqBatch) -> Tensor:
        """States after every position: (B, L, D), each from a row of its own that ends there."""
        rows, length = batch.items.shape
        time = torch.arange(length, device=batch.items.device)
        row, stop = (time < batch.lengths[:, None]).nonzero(as_tuple=True)  # (T,) each
        prefixes = batch.items[row].masked_fill(time > stop[:, None], PAD)  # (T, L)
        states = self.last(SeqBatch(prefixes, stop + 1))  # (T, D)
        return (
            states.new_zeros(rows * length, self.dim)
            .index_copy(0, row * length + stop, states)
            .unflatten(0, (rows, length))
        )

    def last(self, batch: SeqBatch) -> Tensor:
        """States after the newest items: (B, D)."""
        length = batch.items.shape[1]
        if length > self.max_len:
            raise UserError(f"a row of {length} items is longer than the encoder's max_len={self.max_len}")
        items, lengths = F.pad(batch.items, (0, self.width - length), value=PAD), batch.lengths  # (B, W), (B,)
        items = items.masked_fill(torch.arange(self.width, device=items.device) >= lengths[:, None], PAD)
        if self.masks:
            items, lengths = items.scatter(1, lengths[:, None], self.num_items + 1), lengths + 1
        lengths = lengths.clone()  # HRM cuts them in place
        self.model.device = items.device  # RecBole's models put what they make where they were made themselves
        given = dict(zip(INPUTS, (items, items, lengths, lengths, torch.ones_like(lengths)), strict=True))
        states = self.model(**{name: given[name] for name in self.asks})
        if not isinstance(states, Tensor):
            raise UserError(
                f"{type(self).__name__} cannot be an encoder: it gives a {type(states).__name__}, not a state"
            )
        if states.dim() == 3:
            states = states[torch.arange(len(lengths), device=items.device), lengths - 1]
        return states


@cache
def encoder(name: str) -> type[RecBoleEncoder]:
    """The encoder class of a sequential model of RecBole; its options are the keys of RecBole's own file and `dim`.

    Raises:
        UserError: RecBole has no such model, or it needs more than a row of items.
        RecBoleUnusable: RecBole cannot run here.
    """
    package = bring("recbole.model.sequential_recommender")
    kinds = {key: kind for key, kind in vars(package).items() if inspect.isclass(kind)}
    if name not in kinds:
        raise unknown("sequential model of RecBole", name, kinds)
    parameters = list(inspect.signature(vars(kinds[name])["forward"]).parameters.values())[1:]
    asks = [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]
    if strange := [word for word in asks if word not in INPUTS]:
        raise UserError(
            f"recbole:{name} cannot be an encoder: its forward pass needs {', '.join(strange)} besides the items of a row"
        )
    defaults, texts = properties(Path(str(package.__file__)).parents[2] / "properties" / "model" / f"{name}.yaml")
    body = {
        "kind": kinds[name],
        "defaults": defaults,
        "asks": asks,
        "__doc__": document(name, defaults, texts),
        "__module__": __name__,
        "__init__": constructor(RecBoleEncoder, options_of(defaults)),
    }
    return type(f"recbole:{name}", (RecBoleEncoder,), body)


class Known:
    """A stand-in for RecBole's data set: a number of items, a length of rows, and one user.

    Raises:
        UserError: at anything else that the model asks for, naming it.
    """

    def __init__(self, name: str, rows: int, max_len: int) -> None:
        self.name, self.item_num, self.user_num = name, rows, 2
        self.field2seqlen = {f"{ITEM}_list": max_len}

    def num(self, field: str) -> int:
        """Number of ids of a field, PAD included."""
        if field not in (ITEM, USER):
            self.refuse(f"the ids of {field}")
        return self.item_num if field == ITEM else self.user_num

    def refuse(self, what: str) -> None:
        raise UserError(
            f"{self.name} cannot be an encoder: it needs {what} of RecBole's data set, not only the items of a row"
        )

    def __getattr__(self, what: str) -> Any:
        if what.startswith("__"):
            raise AttributeError(what)
        return self.refuse(what)


def built(name: str, kind: type, settings: dict[str, Any], *, rows: int, max_len: int) -> Any:
    """Build a model of RecBole with these settings, for a table of so many items and rows of at most so many."""
    asked = {"USER_ID_FIELD": USER, "ITEM_ID_FIELD": ITEM, "MAX_ITEM_LIST_LENGTH": max_len}
    asked |= {"loss_type": "CE", "train_neg_sample_args": None, "gpu_id": ""}
    with buildable(name):
        with unseen():
            config = typed_config()(model=kind, dataset="seqcl", config_dict={**settings, **asked})
        return kind(config, Known(name, rows, max_len))


@cache
def typed_config() -> Any:
    """RecBole's configuration class, which takes values as they are: its own calls `eval` on every text."""

    class TypedConfig(bring("recbole.config").Config):  # type: ignore[misc]
        def _convert_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
            return dict(config_dict)

    return TypedConfig


@contextmanager
def buildable(name: str) -> Iterator[None]:
    """Inside, an error of RecBole's model is a user's mistake, as RecBole checks no options."""
    try:
        yield
    except UserError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{name} cannot be built with these options: {type(error).__name__}: {error}") from error


@contextmanager
def unseen() -> Iterator[None]:
    """Inside, RecBole's configuration finds no words on the command line; devices that it hides come back afterwards."""
    words, devices = sys.argv, os.environ.get("CUDA_VISIBLE_DEVICES")
    sys.argv = [words[0] if words else ""]
    try:
        yield
    finally:
        sys.argv = words
        if devices is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = devices
