"""Values of Arrow arrays as numpy arrays, without pandas; and paths and files for Arrow."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa


def values_of(array: pa.Array, kind: type[np.generic]) -> np.ndarray:
    """The values of a fixed-width array (T,), sharing its memory; a null has an arbitrary value.

    The array's own to_numpy would import pandas, which costs 0.3 s and 40 MB.
    """
    buffer = array.buffers()[1]
    return np.frombuffer(buffer, kind)[array.offset : array.offset + len(array)] if len(array) else np.empty(0, kind)


def null_mask(array: pa.Array) -> np.ndarray:
    """(T,) bool, true where an array has a null."""
    return values_of(array.is_null().cast(pa.uint8()), np.uint8).astype(bool)


def path_for_arrow(path: Path) -> str:
    """The path as text that Arrow can open: Arrow encodes paths as UTF-8, whatever the locale does."""
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def opened(path: Path) -> pa.NativeFile:
    """Open a file for reading, without Python.

    Arrow's threads may let go of a file that Python opened while the interpreter ends, and that aborts the process, after
    its work is done (https://github.com/apache/arrow/issues/34314).
    """
    return pa.OSFile(os.fsencode(path))
