"""The recipe of a query encoder: enough, as JSON, to build it again without the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqcl.encoders import ENCODERS, Encoder, Exported, Extended, Scoring, Several, TwoTower, kept_layers
from seqcl.errors import UserError
from seqcl.plugins import load_installed, unnamed
from seqcl.types import Bag, Features


@dataclass(frozen=True, kw_only=True)
class Query:
    """The facts that build a query encoder, all JSON.

    Args:
        encoder: name of the encoder, as in `ENCODERS`.
        options: its keywords.
        longest: its longest row, in items.
        max_len: number of items of a history that are read, the newest ones.
        num_items: N.
        similarity: cosine or dot, as items are ranked.
        temperature: divisor of the similarities.
        bias: true if items have a bias: the last coordinate of an item's vector over the temperature.
        towers: keywords of `TwoTower` and its user columns by kind, if that reads the history; else None. The weights
            of the history's table are then the vectors that the towers read of items.
        kept: layers of a projection head that the states go through.
        networks: how many such encoders stand side by side.
    """

    encoder: str
    options: dict[str, Any]
    longest: int
    max_len: int
    num_items: int
    similarity: str
    temperature: float
    bias: bool = False
    towers: dict[str, Any] | None = None
    kept: int = 0
    networks: int = 1

    @classmethod
    def of(
        cls, exported: Exported, scoring: Scoring, *, encoder: str, options: Mapping[str, Any], max_len: int
    ) -> Query:
        """The facts of a trained encoder and of the scoring of its recipe.

        Args:
            exported: what the encoder tells of itself.
            scoring: how states and items become scores.
            encoder: name of the encoder, as in `ENCODERS`.
            options: its keywords.
            max_len: number of items of a history that are read.
        """
        return cls(
            encoder=encoder,
            options=dict(options),
            longest=exported.longest,
            max_len=max_len,
            num_items=exported.num_items,
            similarity=scoring.similarity,
            temperature=scoring.temperature,
            bias=scoring.biased,
            towers=exported.towers,
            kept=exported.kept,
            networks=exported.networks,
        )

    def build(self, source: str | None = None) -> tuple[Any, Scoring]:
        """Build the encoder, with new weights, and the scoring that turns its states into queries.

        Args:
            source: the plugin that the encoder came from; it is named where the encoder is unknown, never imported.

        Raises:
            UserError: nobody has brought the encoder.
        """
        similarity: Any = self.similarity
        encoder = self.network(source)
        if self.networks > 1:
            encoder = Several(
                [encoder, *(self.network(source) for _ in range(1, self.networks))], similarity=similarity
            )
        return encoder, Scoring(similarity=similarity, temperature=self.temperature, bias=self.bias)

    def network(self, source: str | None) -> Encoder:
        """Build one encoder, with new weights."""
        encoder = self.component(source)(num_items=self.num_items, max_len=self.longest, **self.options)
        if self.towers is not None:
            encoder = TwoTower(
                encoder,
                items=Features(bags={}, numbers={}, vectors={}),
                users=nobody(**self.towers["users"]),
                trained=np.ones(self.num_items + 2, bool),  # which zeroes no row; the weights have the true one
                **self.towers["options"] | {"item_id": True, "reads": "ids", "masked": "zero"},
            )
        if self.kept:
            encoder = Extended(encoder, kept_layers(self.kept, encoder.dim))
        return encoder

    def __post_init__(self) -> None:
        for name in ("longest", "max_len", "num_items", "networks"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise UserError(f"the query encoder's {name} must be a whole number above 0")

    def shapes(self, source: str | None = None) -> dict[str, tuple[int, ...]] | None:
        """The shapes of the encoder's weights, found without memory for them; None for a class that cannot do without.

        Raises:
            UserError: as `build`.
        """
        self.component(source)
        if self.encoder not in ENCODERS:
            return None  # of a family: classes of another library, which compute as they are made
        try:
            with torch.device("meta"):
                return {name: tuple(one.shape) for name, one in self.build(source)[0].state_dict().items()}
        except Exception:  # a class that computes with its weights as it is made; `build` says what is wrong with it
            return None

    def component(self, source: str | None = None) -> Any:
        """Find the class of the encoder, also among the installed plugins.

        Raises:
            UserError: nobody has brought it, or named the plugin that makes it; the plugin is named.
        """
        if self.encoder not in ENCODERS:
            load_installed()
        if plugin := unnamed("encoder", self.encoder):
            raise UserError(
                f"the encoder {self.encoder!r} is made by the plugin {plugin}: give it with --plugin {plugin} or, in Python, "
                f"plugins=[{plugin!r}]. No class of another library is made because a bundle says so"
            )
        if self.encoder in ENCODERS or ENCODERS.source_of(self.encoder) or source is None:
            return ENCODERS.find(self.encoder)
        raise UserError(
            f"the encoder {self.encoder!r} is unknown here; it came from {source!r}: "
            "give that with --plugin FILE, or in Python with plugins=[FILE]"
        )


def origin(encoder: str) -> str | None:
    """The plugin that an encoder came from: the name of its file, or its module; None for one of seqcl's own."""
    source = ENCODERS.source_of(encoder)
    if source is None or source.partition(".")[0] == "seqcl":
        return None
    # A bundle goes to other machines, so it does not tell the folders of this one.
    return source.replace("\\", "/").rpartition("/")[2]


def nobody(bags: Mapping[str, int], numbers: Sequence[str], vectors: Mapping[str, int]) -> Features:
    """Make one row without any value.

    Args:
        bags: columns of words, with the number of different words.
        numbers: columns of numbers.
        vectors: columns of vectors, with their width.
    """
    empty = np.zeros(2, np.int64)
    return Features(
        bags={name: Bag(empty, empty[:0], [str(word) for word in range(size)]) for name, size in bags.items()},
        numbers={name: np.full(1, np.nan, np.float32) for name in numbers},
        vectors={name: np.full((1, width), np.nan, np.float32) for name, width in vectors.items()},
    )


def columns_of_users(users: Features) -> dict[str, Any]:
    """The arguments with which `nobody` makes a row of the same columns."""
    return {
        "bags": {name: len(bag.names) for name, bag in users.bags.items()},
        "numbers": list(users.numbers),
        "vectors": {name: values.shape[1] for name, values in users.vectors.items()},
    }


def needed_weights(query: Query, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the query encoder, on the CPU; two that share memory, as safetensors refuses, are parted."""
    names = query.shapes() or query.build()[0].state_dict()
    needed: dict[str, Tensor] = {}
    for name in names:
        one = weights[name].detach().cpu().contiguous()
        shared = {other.untyped_storage().data_ptr() for other in needed.values()}
        needed[name] = one.clone() if one.untyped_storage().data_ptr() in shared else one
    return needed
