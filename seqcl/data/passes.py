"""Pack Parquet files in passes: no column is ever whole in memory, only what each user and each item needs.

The first pass writes codes and times to compact files and counts. The second brings rows to stretches of users, the third
sorts each stretch, the k-core counts over what is there again and again, and the last pass writes the packed arrays. The
result is what `read` and `pack` give, byte for byte.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from seqcl.data.columns import Chosen, Wanted, Where
from seqcl.data.encode import LISTS, is_list, reading_of, spread_lists, take_rows, to_parts, warn_of_missing
from seqcl.data.ids import Codes
from seqcl.data.packing import check_options
from seqcl.data.parquet_log import ParquetLog
from seqcl.data.readers import attributes_near, check_sequences
from seqcl.data.said import sentence
from seqcl.data.sieve import Chunks, Sieve
from seqcl.data.sorting import Coded, write_packed
from seqcl.data.spill import Spill
from seqcl.data.times import Times
from seqcl.disk import whole_folder
from seqcl.errors import UserError

logger = logging.getLogger("seqcl")


def pack_in_passes(
    files: list[Path],
    wanted: Wanted,
    *,
    path: Path,
    name: str,
    place: Path,
    k_core: int = 0,
    duplicates: str = "keep",
    min_length: int = 1,
) -> None:
    """Pack Parquet files as a folder that `Sequences.load` opens; it appears whole or not at all.

    Args:
        files: the files, in the order of their rows.
        wanted: what the user says of the columns and rows.
        path: the file or folder that the user named.
        name: name of the data set in results.
        place: the new folder; unfinished work lies beside it.
        k_core: as in `pack`.
        duplicates: as in `pack`.
        min_length: as in `pack`.

    Raises:
        UserError: as `read` and `pack`.
        OSError: the disk is full, or the folder cannot be written.
    """
    check_options(k_core, duplicates, min_length)
    options: dict[str, Any] = {"k_core": k_core, "duplicates": duplicates, "min_length": min_length}
    source = str(files[0] if len(files) == 1 else path)
    with whole_folder(place) as folder:
        work = folder / "passes"
        coded, reading = encode_in_batches(ParquetLog(files, wanted, source), wanted, work)
        table = attributes_near(path)
        pa.default_memory_pool().release_unused()
        check_sequences(coded.user_ids, coded.rows, source)
        reading |= {"source": path.name}
        logger.info("%s", sentence(reading, name))
        packed = write_packed(coded, work, folder, options=options, name=name, reading=reading, item_table=table)
        shutil.rmtree(work)
        packed.finish(folder)


@dataclass
class Batches:
    """The rows of a log that stay, batch by batch: an item a row, with the places of rows for messages.

    Args:
        log: the files.
        wanted: the rows to leave out.
    """

    log: ParquetLog
    wanted: Wanted
    sieve: Sieve | None = None
    first_list: str | None = None  # place of the first list of items

    def __iter__(self) -> Iterator[tuple[Chosen, Chunks, Where]]:
        row = 0
        for batch in self.log.batches():
            chosen = self.log.chosen
            assert chosen is not None
            self.sieve = self.sieve or Sieve(chosen, self.wanted, self.log.source)
            chunks: Chunks = {name: [array] for name, array in batch.items()}
            where = places_from(self.log, row)
            row += len(batch[chosen.user])
            kept = self.sieve.keep(chunks, where)
            if kept is not None and not kept.any():
                continue
            roles = (chosen.user, chosen.item, chosen.time, chosen.part)
            chunks = {column: arrays for column, arrays in chunks.items() if column in roles}
            if kept is not None:
                chunks, where = take_rows(chunks, kept, where)
            if is_list(chunks[chosen.item][0]):
                self.first_list = self.first_list or where(0, chosen.item)
                chunks, where = spread_lists(chunks, chosen, where)
            if len(chunks[chosen.item][0]):
                yield chosen, chunks, where


def places_from(log: ParquetLog, first: int) -> Where:
    """A function that gives the places of rows of a batch, whose first row has a number."""
    return lambda row, column: log.where(first + row, column)


def encode_in_batches(log: ParquetLog, wanted: Wanted, work: Path) -> tuple[Coded, dict[str, Any]]:
    """Write the codes and times of all rows to files in a folder; and how the log was read, as in `Interactions`.

    Raises:
        UserError: as `read`.
    """
    batches, rows = Batches(log, wanted), 0
    spill: Spill | None = None
    with ThreadPoolExecutor(2) as pool:
        for chosen, chunks, where in batches:
            if spill is None:
                users, items = Codes(chosen.user), Codes(chosen.item)
                times = Times(chosen.time) if chosen.time else None
                kinds: dict[str, np.dtype] = {"users": np.dtype(np.int32), "items": np.dtype(np.int32)}
                kinds |= {"times": np.dtype(np.float64)} if times else {}
                kinds |= {"parts": np.dtype(np.int8)} if chosen.part else {}
                spill = Spill(work / "read", kinds)
            columns = {}
            if times is not None:
                columns["times"] = times.add(chunks[times.column][0], where)
            if chosen.part:
                columns["parts"] = to_parts(chunks[chosen.part], chosen.part, where)
            adding = [pool.submit(codes.add, chunks[codes.column][0], where) for codes in (users, items)]
            columns["users"], columns["items"] = (one.result() for one in adding)
            spill.append(columns)
            rows += len(columns["users"])
    assert batches.sieve is not None
    dropped = batches.sieve.dropped()
    if spill is None:
        raise UserError(f"{batches.first_list}: all lists of items are empty")
    convert: Callable[[np.ndarray], np.ndarray] | None = None
    told: str | None = None
    if times is not None:
        convert, told = times.judge()
    user_place, user_ids, user_counts = users.sorted_ids(refusing(log, wanted, users))
    item_place, item_ids, item_counts = items.sorted_ids(refusing(log, wanted, items))
    warn_of_missing(item_ids, lambda: item_counts, log.source)
    coded = Coded(
        read=spill,
        rows=rows,
        source=log.source,
        user_place=user_place,
        user_ids=user_ids,
        user_counts=user_counts,
        item_place=item_place,
        item_ids=item_ids,
        convert=convert,
    )
    assert log.chosen is not None
    layout = log.layout + (LISTS if batches.first_list else "")
    return coded, reading_of(log.chosen, layout, told, dropped)


def refusing(log: ParquetLog, wanted: Wanted, codes: Codes) -> Callable[[int, str], NoReturn]:
    """A function that refuses the id with a code: it reads the files again to name the first row that has it."""

    def refuse(code: int, why: str) -> NoReturn:
        for _, chunks, where in Batches(log, wanted):
            row = codes.row_of(code, chunks[codes.column][0], where)
            if row is not None:
                raise UserError(f"{where(row, codes.column)}: {why}")
        raise UserError(f"{log.source}: column {codes.column!r}: {why}")

    return refuse
