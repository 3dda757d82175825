"""A trained retriever as a folder that answers without the training data: vectors, index, query encoder and a manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from seqcl.data.sequences import find
from seqcl.disk import whole_folder
from seqcl.encoders import TwoTower, find_encoder
from seqcl.errors import UserError
from seqcl.objectives import NextItem
from seqcl.retrieval.faiss_index import FaissIndex
from seqcl.retrieval.onnx import check_onnx, write_onnx
from seqcl.types import Bag, Features, SeqBatch

FORMAT = "seqcl-bundle-2"
READABLE = ("seqcl-bundle-1", FORMAT)
MANIFEST = "manifest.json"
ANSWERING = ("query.safetensors", "item_ids.npy", "index.json")
"""Small files that every answer depends on: always compared with their hashes."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """How the query encoder is made again, all JSON.

    Args:
        encoder: its name, as `find_encoder` takes it.
        options: its keywords.
        longest: its longest row, in items.
        max_len: most items of a history that are read.
        num_items: N.
        similarity: cosine or dot, as items are ranked.
        temperature: what similarities are divided by.
        bias: whether an item has a bias, which is its vector's last coordinate over the temperature.
        towers: keywords of `TwoTower` and its user columns by kind, where that is what reads the history; its weights have what it
            reads of items as the history's table.
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

    def build(self) -> tuple[Any, NextItem]:
        """The encoder, its weights new, and what turns states into queries."""
        encoder: Any = find_encoder(self.encoder)(num_items=self.num_items, max_len=self.longest, **self.options)
        if self.towers is not None:
            users = nobody(**self.towers["users"])
            encoder = TwoTower(
                encoder,
                items=nothing(),
                users=users,
                trained=np.zeros(self.num_items + 2, bool),
                **self.towers["options"] | {"item_id": True, "reads": "ids"},
            )
        similarity: Any = self.similarity
        return encoder, NextItem(similarity=similarity, temperature=self.temperature, bias=self.bias)


def nothing() -> Features:
    """No columns."""
    return Features(bags={}, numbers={}, vectors={})


def nobody(bags: Mapping[str, int], numbers: Sequence[str], vectors: Mapping[str, int]) -> Features:
    """One row that knows nothing, of columns of so many words, of numbers, and of vectors so wide."""
    empty = np.zeros(2, np.int64)
    return Features(
        bags={name: Bag(empty, empty[:0], [str(word) for word in range(size)]) for name, size in bags.items()},
        numbers={name: np.full(1, np.nan, np.float32) for name in numbers},
        vectors={name: np.full((1, width), np.nan, np.float32) for name, width in vectors.items()},
    )


def columns_of_users(users: Features) -> dict[str, Any]:
    """What `nobody` needs to make the like of them."""
    return {
        "bags": {name: len(bag.names) for name, bag in users.bags.items()},
        "numbers": list(users.numbers),
        "vectors": {name: values.shape[1] for name, values in users.vectors.items()},
    }


def write_bundle(
    folder: Path,
    *,
    query: Query,
    weights: Mapping[str, Tensor],
    vectors: Tensor,
    item_ids: np.ndarray,
    kind: str,
    about: Mapping[str, Any],
    onnx: bool = False,
) -> None:
    """Write a bundle; it appears whole or not at all.

    Args:
        folder: where; nothing may be there.
        query: the query encoder.
        weights: of the model's encoder; what the query encoder does not have is left out.
        vectors: (N, D) of items 1..N.
        item_ids: (N,) their raw ids, sorted.
        kind: of the index: flat, ivf, hnsw or ivfpq.
        about: what else the manifest says: model, protocol, data.
        onnx: whether the query encoder is written as an ONNX graph too.

    Raises:
        UserError: something is there already, the disk is full, or what ONNX needs is not installed.
    """
    if folder.exists():
        raise UserError(f"{folder} is there already: give a new folder")
    if onnx:
        check_onnx()
    encoder, rank = query.build()
    needed = {name: weights[name].detach().cpu().contiguous().clone() for name in encoder.state_dict()}
    encoder.load_state_dict(needed)
    index = FaissIndex(vectors, kind=kind)  # type: ignore[arg-type]
    try:
        with whole_folder(folder) as part:
            np.save(part / "items.npy", vectors.numpy(), allow_pickle=False)
            np.save(part / "item_ids.npy", item_ids, allow_pickle=False)
            write_table(part / "items.parquet", item_ids, vectors.numpy())
            save_file(needed, part / "query.safetensors")
            shutil.copymode(part / "items.npy", part / "query.safetensors")  # safetensors lets nobody else read it
            if onnx:
                write_onnx(part / "query.onnx", encoder, rank, max_len=query.max_len, num_items=query.num_items)
            index.save(part / "index.faiss")
            files = {file.name: sha256(file) for file in sorted(part.iterdir())}
            manifest = {
                "format": FORMAT,
                **about,
                "items": len(item_ids),
                "dim": vectors.shape[1],
                "index": kind,
                "query": vars(query),
                "files": files,
            }
            (part / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: the bundle cannot be written: {error}") from None


def write_table(path: Path, item_ids: np.ndarray, vectors: np.ndarray) -> None:
    """Raw ids and vectors as Parquet: columns item and vector."""
    import pyarrow as pa
    from pyarrow import parquet

    flat = pa.array(vectors.reshape(-1))
    lists = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    parquet.write_table(pa.table({"item": pa.array(item_ids), "vector": lists}), path)


def sha256(path: Path) -> str:
    """Hash of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Bundle:
    """An exported retriever.

    Args:
        folder: what `write_bundle` wrote.
        check: compare every file with the hash in the manifest, the large ones too.

    Raises:
        UserError: no bundle there, a file is missing or is another one, or it is of a version that cannot be read.
    """

    def __init__(self, folder: str | Path, *, check: bool = False) -> None:
        self.folder = Path(folder)
        try:
            self.manifest: dict[str, Any] = json.loads((self.folder / MANIFEST).read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} is no bundle: {MANIFEST}: {error}") from None
        found = self.manifest.get("format") if isinstance(self.manifest, dict) else None
        if found not in READABLE:
            raise UserError(f"{folder} has the format {found!r}; this version reads {FORMAT!r}")
        try:
            for name, known in self.manifest["files"].items():
                file = self.folder / name
                if not file.is_file():
                    raise UserError(f"{folder} is not whole: {name} is missing")
                if (check or name in ANSWERING) and sha256(file) != known:
                    raise UserError(f"{file} is not the file that was exported")
            query = Query(**self.manifest["query"])
            encoder, self.rank = query.build()
            encoder.load_state_dict(load_file(self.folder / "query.safetensors"))
            self.item_ids = np.load(self.folder / "item_ids.npy", mmap_mode="r", allow_pickle=False)
            self.index = FaissIndex.load(self.folder / "index.faiss")
            if (
                not len(self.item_ids) == len(self.index.ids) - 1 == query.num_items
                or self.index.dim != self.manifest["dim"]
            ):
                raise ValueError("its files hold different numbers of items")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{folder} cannot be read: {type(error).__name__}: {error}") from None
        self.encoder: nn.Module = encoder.eval()
        self.max_len = query.max_len

    @torch.no_grad()
    def recommend(self, items: Sequence[Any], *, k: int = 10, exclude_seen: bool = True) -> list[tuple[Any, float]]:
        """The k best (raw item id, score) for a history of raw item ids, oldest first.

        Raises:
            UserError: an id that the bundle does not hold, no id at all, or k below 1.
        """
        if k < 1:
            raise UserError(f"recommend: k must be 1 or more, not {k}")
        if isinstance(items, str) or not len(items):
            raise UserError(f"recommend: items must be a list of raw ids, not {items!r}")
        history = [find(self.item_ids, raw, "item", str(self.folder)) + 1 for raw in items]
        newest = torch.tensor([history[-self.max_len :]])  # (1, L)
        state = self.encoder.last(SeqBatch(newest, torch.tensor([newest.shape[1]])))  # type: ignore[operator]
        seen = torch.tensor(sorted(set(history)))
        exclude = (torch.zeros_like(seen), seen) if exclude_seen else None
        scores, found = self.index.search(self.rank.queries(state), min(k, len(self.item_ids)), exclude)
        pairs = zip(found[0].tolist(), scores[0].tolist(), strict=True)
        return [(self.item_ids[item - 1].item(), score) for item, score in pairs if item]
