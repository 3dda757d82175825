"""Packed folders in the place of a data set, and logs that are large enough to be packed in passes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seqcl.data.columns import Wanted
from seqcl.data.files import PARQUET_ENDS
from seqcl.data.sealed import META
from seqcl.data.sequences import Sequences
from seqcl.errors import UserError

LARGE = 1 << 28
"""Bytes of Parquet, uncompressed, above which a log is packed in passes, which is slower where memory is enough."""


def uncompressed(files: Iterable[Path]) -> int:
    """Bytes of all columns in Parquet files, uncompressed; 0 where one is none, or is not whole."""
    if any(not file.name.lower().endswith(PARQUET_ENDS) for file in files):
        return 0
    from pyarrow import ArrowException, parquet

    from seqcl.data.arrow import path_for_arrow

    total = 0
    for file in files:
        try:
            about = parquet.read_metadata(path_for_arrow(file))
        except (OSError, ArrowException):
            return 0  # the reader will say so
        total += sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
    return total


def is_packed(place: Path) -> bool:
    """True for a folder that holds a packed log."""
    return all((place / name).is_file() for name in (META, "items.npy", "offsets.npy"))


def open_packed(place: Path, wanted: Mapping[str, Any], packing: Mapping[str, Any]) -> Sequences:
    """Open a packed log, whose rows and columns were chosen when it was packed.

    Raises:
        UserError: an option asks for others; or a file is not as it was written.
    """
    sequences = Sequences.load(place)
    plain = asdict(Wanted()) | {"given": wanted["given"]}  # whether there are parts is seen when they are asked for
    for option, value in wanted.items():
        if value != plain[option]:
            raise UserError(f"--data.{option} {value}: {place} was packed already; give the option to seqcl data pack")
    for option, (value, usual) in {"k_core": (packing["k_core"], 0), "duplicates": (packing["duplicates"], "keep"), "min_length": (packing["min_length"], 1)}.items():  # fmt: skip
        if value not in (usual, getattr(sequences, option)):
            raise UserError(
                f"--data.{option} {value}: {place} was packed with {getattr(sequences, option)}; give the option to seqcl data pack"
            )
    return sequences


def refuse_packed(place: Path) -> None:
    """Refuse a packed folder where the rows of a source are asked for.

    Raises:
        UserError: says what to give instead.
    """
    if is_packed(place):
        raise UserError(f"{place}: this log was packed already, and has no rows as they were; give its source instead")
