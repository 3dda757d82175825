"""Search by inner product through faiss, exact or approximate."""

from __future__ import annotations

import json
import math
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
from seqcl.types import PAD

KINDS = ("flat", "ivf", "hnsw", "ivfpq")
CELLS = ("ivf", "ivfpq")
STATE = ("kind", "dim", "lists", "probes", "search_width")
"""Attributes of an index that faiss's own file does not have."""
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

    Args:
        vectors: (N, D), one for each item.
        ids: (N,) item id of each vector, at least 1 and each once; 1..N if not given.
        kind: flat (exact), ivf (inverted lists, a k-means cell each), hnsw (graph of neighbours, arXiv 1603.09320), or
            ivfpq (ivf with a byte for every four coordinates of a vector, Jegou et al., PAMI 2011; scores are
            approximate too).
        lists: cells of ivf and ivfpq; if not given about 4 sqrt(N), with at least 39 vectors a cell.
        probes: cells that a query looks into; if not given an eighth of them.
        links: neighbours of a node of the hnsw graph.
        build_width: candidates kept while the hnsw graph is built.
        search_width: candidates kept while the hnsw graph is searched, never fewer than k.

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
    ) -> None:
        if kind not in KINDS:
            raise unknown("index", kind, KINDS)
        for option, value in (("links", links), ("build_width", build_width), ("search_width", search_width)):
            if value < 1:
                raise UserError(f"{option} {value}: must be at least 1")
        vectors, ids = checked(vectors.cpu(), ids if ids is None else torch.as_tensor(ids).cpu())
        self.name = kind
        self.kind = kind
        self.dim = vectors.shape[1]
        self.ids = np.concatenate((ids.numpy(), [PAD]))  # the last one stands for faiss's -1, not found
        self.lists = lists or max(1, min(int(4 * math.sqrt(len(vectors))), len(vectors) // 39))
        self.probes = min(probes or max(1, self.lists // 8), self.lists)
        self.search_width = search_width
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
        else:
            lengths = np.square(vectors, dtype=np.float64).sum(1)  # (N,)
            rest = np.sqrt(lengths.max() - lengths)[:, None].astype(np.float32)
            vectors = np.concatenate([vectors, rest], axis=1)  # (N, D + 1)
            vectors = np.pad(vectors, ((0, 0), (0, self.padding)))  # (N, E)
            wide = vectors.shape[1]
            self.cells = faiss.IndexFlatIP(wide)  # the index below does not keep it alive
            if self.kind == "ivf":
                index = faiss.IndexIVFFlat(self.cells, wide, self.lists, faiss.METRIC_INNER_PRODUCT)
            else:
                bits = min(8, int(math.log2(len(vectors))))  # a code book cannot have more words than there are vectors
                index = faiss.IndexIVFPQ(
                    self.cells, wide, self.lists, wide // CODE_DIMS, bits, faiss.METRIC_INNER_PRODUCT
                )
                index.pq.cp.min_points_per_centroid = 1
            # Of 200,000 vectors, 64 points a cell find .994 of the exact list; 256 find .995 and take longer.
            index.cp.max_points_per_centroid = 64
            index.cp.min_points_per_centroid = 1  # faiss would warn of small cells and do nothing about them
            index.train(vectors)
        index.add(vectors)
        return index

    @property
    def padding(self) -> int:
        """Number of zeros that make the D + 1 coordinates of ivfpq a multiple of `CODE_DIMS`."""
        return -(self.dim + 1) % CODE_DIMS if self.kind == "ivfpq" else 0

    @property
    def bytes_per_item(self) -> float:
        """Size of the index over its number of items: on disk and, nearly, in memory."""
        return float(len(library().serialize_index(self.index)) / self.index.ntotal)

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
    def load(cls, path: Path) -> FaissIndex:
        """Read an index that `save` wrote.

        Raises:
            RuntimeError: faiss cannot read it.
            UserError: a file is missing, or is no regular file.
            ValueError: the two files are of different indexes.
        """
        made = cls.__new__(cls)
        about = read_json(path.with_suffix(".json"), dict)
        for name in STATE:
            setattr(made, name, about[name])
        if made.kind not in KINDS or not all(
            type(about[name]) is int and 0 < about[name] < 2**31 for name in STATE[1:]
        ):
            raise ValueError(f"{path.with_suffix('.json').name} is not as it was written")
        made.name, made.build_seconds = made.kind, 0.0
        with regular(path).open("rb") as file:
            made.index = library().read_index(library().PyCallbackIOReader(file.read))
        if made.index.d != made.dim + (made.kind in CELLS) * (1 + made.padding):
            raise ValueError(f"{path.name} holds vectors of width {made.index.d}, not of {made.dim}")
        made.ids = np.concatenate((np.arange(1, made.index.ntotal + 1), [PAD]))
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
        span = int(self.ids.max()) + 1
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
        return self.index.search(longer, count, params=faiss.SearchParametersIVF(nprobe=probes))


def library() -> Any:
    """Import faiss, and give it as many threads as torch: each brings an OpenMP of its own."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss
