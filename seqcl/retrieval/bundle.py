"""A bundle: a folder that recommends without the training data. It has vectors, index, query encoder and a manifest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from seqcl.data.batches import tensor
from seqcl.data.sequences import find
from seqcl.disk import read_json, whole_folder
from seqcl.encoders import Scoring
from seqcl.encoders.table import unfilled
from seqcl.errors import UserError, brief, refuse_infinite_weights, unknown
from seqcl.plugins import load
from seqcl.retrieval.exact import checked_queries
from seqcl.retrieval.faiss_index import KINDS, FaissIndex
from seqcl.retrieval.onnx import check_onnx, write_onnx
from seqcl.retrieval.promise import QUERIES, RECALL, check_recall, keep_promise
from seqcl.retrieval.query import Query, origin
from seqcl.retrieval.vectors import mapped_vectors, write_features, write_table, write_vectors
from seqcl.types import SeqBatch

FIRST = "seqcl-bundle-1"
"""In it an item's last coordinate is its bias; later it is the bias times the temperature."""
FORMAT = "seqcl-bundle-2"
READABLE = (FIRST, FORMAT)
MANIFEST = "manifest.json"
ITEM_TABLE = "item_table.parquet"
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, RuntimeError, MemoryError, EOFError, SafetensorError)  # fmt: skip
"""Errors that libraries raise at files of another content, RecursionError (a RuntimeError) too."""
ANSWERING = ("query.safetensors", "item_ids.npy", "index.json", "index.faiss")
"""The files that every answer depends on: they are always compared with their hashes, before they are read."""


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
            save_file(needed, part / "query.safetensors")
            shutil.copymode(part / "items.npy", part / "query.safetensors")  # safetensors lets nobody else read it
            if onnx:
                encoder, scoring = query.build()
                encoder.load_state_dict(needed)
                write_onnx(part / "query.onnx", encoder, scoring, max_len=query.max_len, num_items=query.num_items)
            index = FaissIndex(torch.from_numpy(items), kind=kind)  # type: ignore[arg-type]
            asked = some_of(items) if queries is None else queries
            search = keep_promise(index, torch.from_numpy(items), asked, recall=recall, k=k)
            index.save(part / "index.faiss")
            files = {file.name: sha256(file) for file in sorted(part.iterdir())}
            manifest = {
                "format": FORMAT,
                **about,
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


def needed_weights(query: Query, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the query encoder, on the CPU; two that share memory, as safetensors refuses, are parted."""
    names = query.shapes() or query.build()[0].state_dict()
    needed: dict[str, Tensor] = {}
    for name in names:
        one = weights[name].detach().cpu().contiguous()
        shared = {other.untyped_storage().data_ptr() for other in needed.values()}
        needed[name] = one.clone() if one.untyped_storage().data_ptr() in shared else one
    return needed


def some_of(vectors: np.ndarray) -> Tensor:
    """Vectors of items drawn at random, in the place of queries."""
    rows = np.random.default_rng(0).choice(len(vectors), min(QUERIES, len(vectors)), replace=False)
    return torch.from_numpy(np.array(vectors[rows]))


def sha256(path: Path) -> str:
    """Compute the hash of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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
            self.item_ids = np.load(self.folder / "item_ids.npy", mmap_mode="r", allow_pickle=False)
            if self.item_ids.shape != (query.num_items,) or self.manifest["items"] != query.num_items:
                raise ValueError("its files hold different numbers of items")
            self.encoder, self.scoring = self.query_encoder(query)
            self.index = FaissIndex.load(self.folder / "index.faiss", exact)
            if len(self.index.ids) - 1 != query.num_items or self.index.dim != self.manifest["dim"]:
                raise ValueError("its index holds vectors of another number or width")
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
            found = np.load(self.folder / "items.npy", mmap_mode="r", allow_pickle=False)
        except UNREADABLE as error:
            raise UserError(f"{self.folder}/items.npy cannot be read: {brief(error)}") from None
        if found.shape != (len(self.item_ids), self.index.dim) or found.dtype != np.float32:
            raise UserError(f"{self.folder}/items.npy holds vectors of another number or width than the index")
        return tensor(found, torch.device("cpu"))

    @torch.no_grad()
    def recommend(self, items: Sequence[Any], *, k: int = 10, exclude_seen: bool = True) -> list[tuple[Any, float]]:
        """Recommend the k best (raw item id, score) for a history of raw item ids, oldest first.

        Raises:
            UserError: an id that the bundle does not have, no id at all, or k below 1.
        """
        if k < 1:
            raise UserError(f"recommend: k must be 1 or more, not {k}")
        if isinstance(items, str) or not len(items):
            raise UserError(f"recommend: items must be a list of raw ids, not {items!r}")
        history = [find(self.item_ids, raw, "item", str(self.folder)) + 1 for raw in items]
        queries = self.queries(history)
        seen = torch.tensor(sorted(set(history)))
        exclude = (torch.zeros_like(seen), seen) if exclude_seen else None
        scores, found = self.index.search(queries, min(k, len(self.item_ids)), exclude)
        pairs = zip(found[0].tolist(), scores[0].tolist(), strict=True)
        return [(self.item_ids[item - 1].item(), score) for item, score in pairs if item]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a bundle.

    Raises:
        UserError: there is none, or its format cannot be read.
    """
    try:
        manifest = read_json(folder / MANIFEST)
    except UserError as error:
        raise UserError(f"{folder} is no bundle: {str(error).removeprefix(f'{folder}{os.sep}')}") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found not in READABLE:
        raise UserError(f"{folder} has the format {brief(repr(found), 60)}; this version reads {', '.join(READABLE)}")
    return dict(manifest)


def compare_files(folder: Path, hashes: Mapping[str, str], *, names: Iterable[str]) -> None:
    """Compare the named files of a bundle with the hashes of its manifest.

    Raises:
        UserError: a file is missing, or was changed.
    """
    for name in {**dict.fromkeys(names), **hashes}:
        if name not in hashes or Path(name).name != name:
            raise UserError(f"{MANIFEST} is not as it was written: its files are {', '.join(ANSWERING)} and others")
        if not (folder / name).is_file():
            raise UserError(f"the bundle is not whole: {name} is missing, or is no regular file")
    for name in names:
        if sha256(folder / name) != hashes[name]:
            raise UserError(f"{name} is not the file that was exported: export the run again")


def compare_shapes(wanted: Mapping[str, tuple[int, ...]], weights: Mapping[str, Tensor]) -> None:
    """Refuse weights of another encoder than the manifest describes.

    Raises:
        UserError: names the first that differs.
    """
    for name in sorted(wanted.keys() | weights.keys()):
        there = tuple(weights[name].shape) if name in weights else "missing"
        if wanted.get(name, "unknown") != there:
            raise UserError(f"{MANIFEST} and query.safetensors do not fit: {name} is {wanted.get(name)} and {there}")
