"""A bundle: a folder that recommends without the training data. It has vectors, index, query encoder and a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from seqcl.data.batches import tensor
from seqcl.disk import read_json, whole_folder
from seqcl.encoders import Memories, Scoring
from seqcl.encoders.table import unfilled
from seqcl.errors import UserError, brief, refuse_infinite_weights, unknown
from seqcl.mapped import mapped_array
from seqcl.plugins import load
from seqcl.retrieval.asked import Asked, Recommended, about_allowed, allowed_items, exact_index
from seqcl.retrieval.beside import FILE, read_memories, write_memories, write_tensors
from seqcl.retrieval.exact import checked_queries
from seqcl.retrieval.faiss_index import KINDS, FaissIndex
from seqcl.retrieval.manifest import (
    ANSWERING,
    FIRST,
    FORMAT,
    MANIFEST,
    WITH_MEMORIES,
    compare_files,
    compare_shapes,
    read_manifest,
    sha256,
)
from seqcl.retrieval.onnx import check_onnx, write_onnx
from seqcl.retrieval.promise import QUERIES, RECALL, check_recall, keep_promise
from seqcl.retrieval.query import Query, needed_weights, origin
from seqcl.retrieval.vectors import mapped_vectors, write_features, write_table, write_vectors
from seqcl.types import SeqBatch

ITEM_TABLE = "item_table.parquet"
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, RuntimeError, MemoryError, EOFError, SafetensorError)  # fmt: skip
"""Errors that libraries raise at files of another content, RecursionError (a RuntimeError) too."""


def write_bundle(
    folder: Path,
    *,
    query: Query,
    weights: Mapping[str, Tensor],
    vectors: Iterable[Tensor],
    item_ids: np.ndarray,
    kind: str,
    about: Mapping[str, Any],
    queries: Tensor | None = None,
    recall: float = RECALL,
    k: int = 20,
    onnx: bool = False,
    memories: Memories | None = None,
    table: Any = None,
) -> None:
    """Write a bundle; it appears whole or not at all. The vectors are never in memory as a whole, if the index keeps none.

    Args:
        folder: a new folder.
        query: the query encoder.
        weights: weights of the model's encoder; those that the query encoder does not have are left out.
        vectors: of items 1..N, in pieces: (n, D) each.
        item_ids: (N,) their raw ids, sorted.
        kind: kind of the index: flat, ivf, hnsw or ivfpq.
        about: further facts for the manifest: model, protocol, data.
        queries: (Q, D), to choose the width of search with; None: vectors of some items.
        recall: share of the exact k best that the index is to find.
        k: length of the lists.
        onnx: write the query encoder as an ONNX graph too.
        memories: what adds to the inner products; None for nothing.
        table: a frame with features of items by raw id, for people to look at; columns of vectors are left out. None: none.

    Raises:
        UserError: the folder is there already, the index is unknown or cannot find that share, the disk is full, or a
            package that ONNX needs is not installed.
    """
    if folder.exists():
        raise UserError(f"{folder} is there already: give a new folder")
    if kind not in KINDS:
        raise unknown("index", kind, KINDS)
    check_recall(recall)
    if onnx:
        check_onnx()
    needed = needed_weights(query, weights)
    plugin = origin(query.encoder)
    try:
        with whole_folder(folder) as part:
            write_vectors(part / "items.npy", vectors, len(item_ids))
            np.save(part / "item_ids.npy", item_ids, allow_pickle=False)
            items = mapped_vectors(part / "items.npy")
            write_table(part / "items.parquet", item_ids, items)
            write_features(part / ITEM_TABLE, table)
            write_tensors(part / "query.safetensors", needed)
            if onnx:
                encoder, scoring = query.build()
                encoder.load_state_dict(needed)
                write_onnx(part / "query.onnx", encoder, scoring, max_len=query.max_len, num_items=query.num_items)
            index = FaissIndex(torch.from_numpy(items), kind=kind)  # type: ignore[arg-type]
            asked = some_of(items) if queries is None else queries
            search = keep_promise(index, torch.from_numpy(items), asked, recall=recall, k=k)
            index.save(part / "index.faiss")
            beside = {} if memories is None else {"memories": write_memories(memories, part)}
            files = {file.name: sha256(file) for file in sorted(part.iterdir())}
            manifest = {
                "format": WITH_MEMORIES if beside else FORMAT,
                **about,
                **beside,
                "items": len(item_ids),
                "dim": items.shape[1],
                "index": kind,
                "search": search,
                "query": vars(query),
                "plugins": [plugin] if plugin else [],
                "files": files,
            }
            (part / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: the bundle cannot be written: {error}") from None


def some_of(vectors: np.ndarray) -> Tensor:
    """Vectors of items drawn at random, in the place of queries."""
    rows = np.random.default_rng(0).choice(len(vectors), min(QUERIES, len(vectors)), replace=False)
    return torch.from_numpy(np.array(vectors[rows]))


class Bundle:
    """An exported retriever.

    Nothing is imported because the bundle says so: an encoder that is not seqcl's own comes from `plugins`, from an
    installed plugin, or was registered before.

    Args:
        folder: a folder that `write_bundle` wrote.
        check: compare every file with its hash in the manifest, those too that no answer depends on.
        plugins: files or modules to import first, as `--plugin` takes them.

    Raises:
        UserError: no bundle is there, a file is missing or was changed, its format cannot be read, or nobody has
            brought its encoder.
    """

    def __init__(self, folder: str | Path, *, check: bool = False, plugins: Iterable[str] = ()) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        for plugin in plugins:
            load(plugin)
        try:
            compare_files(self.folder, self.manifest["files"], names=self.manifest["files"] if check else ANSWERING)
            exact = self.exact_vectors()
            query = Query(**self.manifest["query"])
            self.item_ids = mapped_array(self.folder / "item_ids.npy")
            if self.item_ids.shape != (query.num_items,) or self.manifest["items"] != query.num_items:
                raise ValueError("its files hold different numbers of items")
            self.encoder, self.scoring = self.query_encoder(query)
            self.index = FaissIndex.load(self.folder / "index.faiss", exact)
            if len(self.index.ids) - 1 != query.num_items or self.index.dim != self.manifest["dim"]:
                raise ValueError("its index holds vectors of another number or width")
            self.memories = self.with_memories()
            self.plain_bias = query.bias and self.manifest["format"] == FIRST
            self.max_len = query.max_len
            checked_queries(self.queries([1]), self.index.dim)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from None
        except UNREADABLE as error:
            raise UserError(f"{folder} cannot be read: {type(error).__name__}: {brief(error)}") from None

    def exact_vectors(self) -> np.ndarray | None:
        """The vectors of the items, mapped into memory, if the index ranks by them; compared with their hash first."""
        about = read_json(self.folder / "index.json", dict)
        if about.get("rerank", 1) == 1:
            return None
        compare_files(self.folder, self.manifest["files"], names=["items.npy"])
        return mapped_vectors(self.folder / "items.npy")

    def with_memories(self) -> Memories | None:
        """The memories, and the vectors that they add to, compared with their hashes; None where there are none."""
        if self.manifest["format"] != WITH_MEMORIES:
            return None
        compare_files(self.folder, self.manifest["files"], names=[FILE])
        self.items = self.vectors()
        return read_memories(self.folder, self.manifest["memories"])

    def query_encoder(self, query: Query) -> tuple[nn.Module, Scoring]:
        """Build the encoder with its weights, and the scoring."""
        weights = load_file(self.folder / "query.safetensors")
        source = next(iter(self.manifest.get("plugins", ())), None)
        if (wanted := query.shapes(source)) is not None:  # before memory is taken for them
            compare_shapes(wanted, weights)
        with unfilled():
            encoder, scoring = query.build(source)
        encoder.load_state_dict(weights, assign=True)  # they stay mapped into memory
        refuse_infinite_weights(weights, "query.safetensors")
        return encoder.eval(), scoring

    @torch.no_grad()
    def queries(self, history: Sequence[int]) -> Tensor:
        """The query of one history of items 1..N, oldest first: (1, D)."""
        newest = torch.tensor([history[-self.max_len :]])  # (1, L)
        return self.encode(SeqBatch(newest, torch.tensor([newest.shape[1]])))

    @torch.no_grad()
    def scores(self, batch: SeqBatch) -> Tensor:
        """Scores of items 1..N with those of the memories, which a bundle must have: (B, N)."""
        assert self.memories is not None
        network, vectors = self.encode(batch) @ self.items.T, self.items[:, : self.items.shape[1] - self.scoring.biased]
        return self.memories(network, batch, vectors)

    @torch.no_grad()
    def encode(self, batch: SeqBatch) -> Tensor:
        """The queries of histories of at most `max_len` items: (B, D)."""
        queries = self.scoring.queries(self.encoder.last(batch))  # type: ignore[operator]
        if self.plain_bias:
            queries[:, -1] = 1
        return queries

    def vectors(self) -> Tensor:
        """Vectors of items 1..N, mapped from disk once they were compared with their hash: (N, D).

        Raises:
            UserError: items.npy was changed, or does not fit the other files.
        """
        compare_files(self.folder, self.manifest["files"], names=["items.npy"])
        try:
            found = mapped_array(self.folder / "items.npy")
        except UNREADABLE as error:
            raise UserError(f"{self.folder}/items.npy cannot be read: {brief(error)}") from None
        if found.shape != (len(self.item_ids), self.index.dim) or found.dtype != np.float32:
            raise UserError(f"{self.folder}/items.npy holds vectors of another number or width than the index")
        return tensor(found, torch.device("cpu"))

    def recommend(
        self, items: Sequence[Any], *, k: int = 10, exclude_seen: bool = True, allowed: Sequence[Any] | None = None
    ) -> Recommended:
        """Recommend the k best (raw item id, score) for a history of raw item ids, oldest first.

        Items that the bundle does not have are left out, and a warning names them. The items that are `allowed`, such as
        those in stock, are compared exactly, not through the index.

        Raises:
            UserError: none of the items is known, or k is below 1.
        """
        if isinstance(items, str):
            raise UserError(f"recommend: items must be a list of raw ids, not {items!r}")
        return self.recommend_many([items], k=k, exclude_seen=exclude_seen, allowed=allowed)[0]

    def recommend_many(
        self,
        histories: Sequence[Sequence[Any]],
        *,
        k: int = 10,
        exclude_seen: bool = True,
        allowed: Sequence[Any] | None = None,
    ) -> list[Recommended]:
        """The list of `recommend` for each of many histories, all at once; one without a known item gets an empty list.

        Raises:
            UserError: as `recommend`.
        """
        return self.asked(allowed).of_items(histories, k=k, exclude_seen=exclude_seen)

    def asked(self, allowed: Sequence[Any] | None = None, *, exact: bool = False) -> Asked:
        """The bundle, to be asked for many lists.

        Args:
            allowed: raw ids of the items that may be recommended, which are compared exactly; None: all.
            exact: compare with the vectors of all items, as the run does, not through the index.

        Raises:
            UserError: none of these items is known, or vectors that are not those that were exported.
        """
        only = allowed_items(allowed, self.item_ids, str(self.folder))
        beside = self.memories is not None  # they score all items
        exactly = beside or exact or only is not None
        return Asked(
            name=str(self.folder),
            rows=self.scores if beside else self.encode,
            searcher=exact_index(None if beside else self.vectors(), only) if exactly else self.index,
            gathered=512 if beside else None,
            item_ids=self.item_ids,
            max_len=self.max_len,
            batch_size=512,
            device=torch.device("cpu"),
            about=about_allowed(only),
        )
