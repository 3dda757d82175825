"""Search by inner product through faiss, exact or approximate."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from seqcl.blocks import contains
from seqcl.disk import read_json, regular, write_text
from seqcl.errors import UserError, unknown
from seqcl.retrieval.exact import checked, checked_queries
from seqcl.retrieval.pieces import CELL_POINTS, pieces, sample_of, squares
from seqcl.types import PAD

KINDS = ("flat", "ivf", "hnsw", "ivfpq")
CELLS = ("ivf", "ivfpq")
STATE = {"kind": None, "dim": None, "lists": None, "probes": None, "search_width": None, "rerank": 1}
"""Attributes of an index that faiss's own file does not have, with the value where an older one did not store it."""
CODE_DIMS = 4
"""Coordinates that ivfpq keeps in a byte."""
Kind = Literal["flat", "ivf", "hnsw", "ivfpq"]


class FaissIndex:
    """Finds items with a large inner product.

    flat misses none. In large catalogues ivf and hnsw miss some and save time, ivfpq misses more and saves memory.

    The cells of ivf are made of vectors with one more coordinate, which makes all of them equally long (Bachrach et
    al., RecSys 2014). Queries have zero there, so scores do not change. Measured on 12,101 vectors like trained ones,
    with 16 of 310 cells: 0.87 of the exact top 20 instead of 0.65. For hnsw the same gains nothing there and loses on
    random vectors; a wider build than 40 loses too.

    Vectors are gone through in pieces, so they may be a file mapped into memory; hnsw and flat keep a copy of them.

    Args:
        vectors: (N, D), one for each item; ivfpq with `rerank` goes on reading them.
        ids: (N,) item id of each vector, at least 1 and each once; 1..N if not given.
        kind: flat (exact), ivf (inverted lists, a k-means cell each), hnsw (graph of neighbours, arXiv 1603.09320), or
            ivfpq (ivf with a byte for every four coordinates of a vector, Jegou et al., PAMI 2011; scores are
            approximate too).
        lists: cells of ivf and ivfpq; if not given about 4 sqrt(N), with at least 39 vectors a cell.
        probes: cells that a query looks into; if not given an eighth of them.
        links: neighbours of a node of the hnsw graph.
        build_width: candidates kept while the hnsw graph is built.
        search_width: candidates kept while the hnsw graph is searched, never fewer than k.
        rerank: factor by which ivfpq finds more items than are asked for; the best by their own vectors stay. 1: by
            codes alone.

    Raises:
        UserError: an unknown kind, or a width below 1.
        ValueError: as `ExactIndex`.
    """

    def __init__(
        self,
        vectors: Tensor,
        ids: Tensor | None = None,
        *,
        kind: Kind = "flat",
        lists: int | None = None,
        probes: int | None = None,
        links: int = 32,
        build_width: int = 40,
        search_width: int = 128,
        rerank: int = 1,
    ) -> None:
        if kind not in KINDS:
            raise unknown("index", kind, KINDS)
        widths = {"links": links, "build_width": build_width, "search_width": search_width, "rerank": rerank}
        for option, value in widths.items():
            if value < 1:
                raise UserError(f"{option} {value}: must be at least 1")
        vectors, ids = checked(vectors.cpu(), ids if ids is None else torch.as_tensor(ids).cpu())
        if kind == "ivfpq" and len(vectors) == 1:
            raise UserError("ivfpq has no codes of a single vector: use flat")
        self.name = kind
        self.kind = kind
        self.dim = vectors.shape[1]
        self.ids = np.concatenate((ids.numpy(), [PAD]))  # the last one stands for faiss's -1, not found
        self.lists = lists or max(1, min(int(4 * math.sqrt(len(vectors))), len(vectors) // 39))
        self.probes = min(probes or max(1, self.lists // 8), self.lists)
        self.search_width = search_width
        self.rerank = rerank
        self.span = int(ids.max()) + 1
        self.exact = vectors.numpy() if kind == "ivfpq" else None
        started = time.perf_counter()
        self.index = self.built(vectors.numpy(), links, build_width)
        self.build_seconds = time.perf_counter() - started

    def built(self, vectors: np.ndarray, links: int, build_width: int) -> Any:
        """Build the faiss index with all vectors in it."""
        faiss = library()
        if self.kind == "flat":
            index = faiss.IndexFlatIP(self.dim)
        elif self.kind == "hnsw":
            index = faiss.IndexHNSWFlat(self.dim, links, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = build_width
            index.add(vectors)  # in one piece: the graph depends on what is added together
            return index
        else:
            self.longest = max(float(squares(part).max()) for part in pieces(vectors))
            wide = self.dim + 1 + self.padding
            self.cells = faiss.IndexFlatIP(wide)  # the index below does not keep it alive
            if self.kind == "ivf":
                index = faiss.IndexIVFFlat(self.cells, wide, self.lists, faiss.METRIC_INNER_PRODUCT)
            else:
                bits = min(8, int(math.log2(len(vectors))))  # a code book cannot have more words than there are vectors
                index = faiss.IndexIVFPQ(
                    self.cells, wide, self.lists, wide // CODE_DIMS, bits, faiss.METRIC_INNER_PRODUCT
                )
                index.pq.cp.min_points_per_centroid = 1
            index.cp.max_points_per_centroid = CELL_POINTS
            index.cp.min_points_per_centroid = 1  # faiss would warn of small cells and do nothing about them
            index.train(self.longer(sample_of(vectors, CELL_POINTS * self.lists)))
        for part in pieces(vectors):
            index.add(self.longer(part) if self.kind in CELLS else part)
        return index

    def longer(self, vectors: np.ndarray) -> np.ndarray:
        """Give vectors of cells their further coordinate, and zeros up to a multiple of `CODE_DIMS` for ivfpq: (n, E)."""
        rest = np.sqrt(self.longest - squares(vectors))[:, None].astype(np.float32)
        return np.pad(np.concatenate([vectors, rest], axis=1), ((0, 0), (0, self.padding)))

    @property
    def padding(self) -> int:
        """Number of zeros that make the D + 1 coordinates of ivfpq a multiple of `CODE_DIMS`."""
        return -(self.dim + 1) % CODE_DIMS if self.kind == "ivfpq" else 0

    @property
    def bytes_per_item(self) -> float:
        """Size of the index over its number of items: on disk and, nearly, in memory."""
        size = 0

        def count(block: bytes) -> int:
            nonlocal size
            size += len(block)
            return len(block)

        library().write_index(self.index, library().PyCallbackIOWriter(count))
        return size / int(self.index.ntotal)

    def save(self, path: Path) -> None:
        """Write the index to `path`, and its other attributes beside it with the suffix .json.

        Raises:
            ValueError: its ids are not 1..N.
        """
        if not np.array_equal(self.ids[:-1], np.arange(1, len(self.ids))):
            raise ValueError("only an index of the items 1..N can be saved")
        with path.open("wb") as file:  # faiss takes no path that is not ASCII under LC_ALL=C
            library().write_index(self.index, library().PyCallbackIOWriter(file.write))
        about = {name: getattr(self, name) for name in STATE}
        write_text(path.with_suffix(".json"), json.dumps(about))

    @classmethod
    def load(cls, path: Path, exact: np.ndarray | None = None) -> FaissIndex:
        """Map an index that `save` wrote into memory; only what a search reads is then read from disk.

        Args:
            path: the index.
            exact: (N, D) the vectors, which an index with `rerank` needs.

        Raises:
            RuntimeError: faiss cannot read it.
            UserError: a file is missing, or is no regular file.
            ValueError: the two files are of different indexes.
        """
        made = cls.__new__(cls)
        about = read_json(path.with_suffix(".json"), dict)
        for name, before in STATE.items():
            setattr(made, name, about[name] if before is None else about.get(name, before))
        sizes = [getattr(made, name) for name in STATE if name != "kind"]
        if made.kind not in KINDS or not all(type(size) is int and 0 < size < 2**31 for size in sizes):
            raise ValueError(f"{path.with_suffix('.json').name} is not as it was written")
        made.name, made.build_seconds = made.kind, 0.0
        made.index = mapped(regular(path))
        if made.index.d != made.dim + (made.kind in CELLS) * (1 + made.padding):
            raise ValueError(f"{path.name} holds vectors of width {made.index.d}, not of {made.dim}")
        made.ids = np.concatenate((np.arange(1, made.index.ntotal + 1), [PAD]))
        made.span = len(made.ids)
        if made.rerank > 1 and (exact is None or exact.shape != (made.index.ntotal, made.dim)):
            raise ValueError(f"{path.name} needs the vectors of its items, {made.index.ntotal} of width {made.dim}")
        made.exact = exact
        return made

    def search(self, queries: Tensor, k: int, exclude: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Find k items of each query: scores (B, k) float32 and item ids (B, k), best first.

        Where fewer than k are found, the rest is minus infinity and PAD. faiss cannot exclude different items for each
        query, so more are fetched than asked for and the excluded ones dropped. Rows left with fewer than k are searched
        again, more widely, until they have seen the whole index.

        Args:
            queries: (B, D), on any device; the results are on the same one.
            k: number of items for each query.
            exclude: rows (P,) of queries and item ids (P,) that they must not find.

        Raises:
            ValueError: a query holds a value that is not finite, or has another width than the vectors.
        """
        device = queries.device
        wanted = checked_queries(queries, self.dim).cpu().contiguous().numpy()
        scores = np.full((len(wanted), k), -np.inf, dtype=np.float32)
        items = np.full((len(wanted), k), PAD, dtype=np.int64)
        span = self.span
        barred = np.zeros(0, dtype=np.int64)  # row * span + item
        if exclude is not None:
            rows, seen = (part.cpu().numpy().astype(np.int64) for part in exclude)
            barred = np.unique((rows * span + seen)[(seen > 0) & (seen < span)])
        pending = np.arange(len(wanted))
        total = len(self.ids) - 1
        fetch, probes = min(2 * k if len(barred) else k, total), self.probes
        while len(pending):
            found, place = self.fetch(wanted[pending], fetch, probes)
            names = self.ids[place]  # (rows, fetch)
            good = (names != PAD) & ~contains(barred, pending[:, None] * span + names)
            order = np.argsort(~good, axis=1, kind="stable")[:, :k]  # good ones first, best first among them
            there = np.take_along_axis(good, order, axis=1)
            width = order.shape[1]
            scores[pending, :width] = np.where(there, np.take_along_axis(found, order, axis=1), -np.inf)
            items[pending, :width] = np.where(there, np.take_along_axis(names, order, axis=1), PAD)
            if fetch == total and (self.kind not in CELLS or probes == self.lists):
                break
            pending = pending[good.sum(1) < k] if len(barred) or self.kind in CELLS else pending[:0]
            fetch, probes = min(4 * fetch, total), min(4 * probes, self.lists)
        return torch.from_numpy(scores).to(device), torch.from_numpy(items).to(device)

    def fetch(self, queries: np.ndarray, count: int, probes: int) -> tuple[np.ndarray, np.ndarray]:
        """Ask faiss for scores and places (rows, count), best first, -1 where it finds fewer."""
        faiss = library()
        if self.kind == "flat":
            return self.index.search(queries, count)
        if self.kind == "hnsw":
            width = faiss.SearchParametersHNSW(efSearch=max(self.search_width, count))
            return self.index.search(queries, count, params=width)
        longer = np.pad(queries, ((0, 0), (0, 1 + self.padding)))  # (B, E)
        more = min(count * self.rerank, int(self.index.ntotal))
        found, places = self.index.search(longer, more, params=faiss.SearchParametersIVF(nprobe=probes))
        return (found, places) if self.rerank == 1 else self.reranked(queries, places, count)

    def reranked(self, queries: np.ndarray, places: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The best of the places (rows, more) by their own vectors: scores and places (rows, count)."""
        assert self.exact is not None
        found = np.full(places.shape, -np.inf, np.float32)
        for row, (query, there) in enumerate(zip(queries, places, strict=True)):
            known = there >= 0
            found[row, known] = self.exact[there[known]] @ query
        order = np.argsort(-found, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(found, order, axis=1), np.take_along_axis(places, order, axis=1)


def mapped(path: Path) -> Any:
    """Map a faiss index into memory; where faiss cannot, or takes no such path, read it.

    Raises:
        OSError, RuntimeError: it cannot be read.
    """
    faiss, name = library(), os.fspath(path)
    plain = os.fsencode(name) == name.encode(errors="replace")  # faiss takes no path but in UTF-8
    if plain and os.name == "posix" and hasattr(faiss, "IO_FLAG_MMAP_IFC"):
        return faiss.read_index(name, faiss.IO_FLAG_MMAP_IFC)
    with path.open("rb") as file:
        return faiss.read_index(faiss.PyCallbackIOReader(file.read))


def library() -> Any:
    """Import faiss, and give it as many threads as torch: each brings an OpenMP of its own."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss
