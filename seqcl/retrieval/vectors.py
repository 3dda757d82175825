"""The files of a bundle that hold the vectors of its items, written and read in pieces."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from seqcl.retrieval.exact import refuse_infinite

ROWS = 1 << 20
"""Rows of a group in the Parquet file."""


def write_vectors(path: Path, parts: Iterable[Tensor], rows: int) -> None:
    """Write vectors as an .npy file, (rows, D) float32, as they come.

    Raises:
        Diverged: a value is not finite.
        ValueError: there are fewer or more of them.
    """
    written = 0
    with path.open("wb") as file:
        for part in parts:
            vectors = part.detach().float().cpu().contiguous()
            refuse_infinite("vector", vectors, first=written)
            if not written:
                head = {"descr": "<f4", "fortran_order": False, "shape": (rows, vectors.shape[1])}
                np.lib.format.write_array_header_1_0(file, head)
            file.write(vectors.numpy().astype("<f4", copy=False).data)
            written += len(vectors)
    if written != rows:
        raise ValueError(f"there are {written} vectors for {rows} items")


def mapped_vectors(path: Path) -> np.ndarray:
    """Map the vectors into memory; what is written to them there stays there."""
    return np.load(path, mmap_mode="c", allow_pickle=False)


def write_table(path: Path, item_ids: np.ndarray, vectors: np.ndarray) -> None:
    """Write raw ids and vectors as Parquet, with the columns item and vector."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = pa.schema({"item": pa.array(item_ids[:1]).type, "vector": pa.list_(pa.float32(), vectors.shape[1])})
    with path.open("wb") as file, parquet.ParquetWriter(file, kinds) as table:  # Arrow takes no path that is not ASCII
        for start in range(0, len(item_ids), ROWS):
            rows = slice(start, start + ROWS)
            lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors[rows].reshape(-1)), vectors.shape[1])
            table.write_table(pa.table([pa.array(item_ids[rows]), lists], schema=kinds))


def write_features(path: Path, table: Any) -> None:
    """Write a frame of features as Parquet, without the columns whose cells are arrays of fractions; None writes nothing."""
    if table is None:
        return
    cells = {name: next((cell for cell in table[name] if isinstance(cell, np.ndarray | list)), ()) for name in table}
    vectors = [name for name, cell in cells.items() if any(isinstance(one, float | np.floating) for one in cell)]
    path.write_bytes(table.drop(columns=vectors).to_parquet())  # pandas takes no path that is not ASCII under LC_ALL=C
