"""Options that lead from a log to training, validation and test windows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from seqcl.data.columns import ReadOptions
from seqcl.data.datasets import load_sequences
from seqcl.data.given import given
from seqcl.data.hardships import add_noise, hold_out_items, keep_users
from seqcl.data.interactions import Interactions
from seqcl.data.sequences import Sequences
from seqcl.data.split import Split, leave_one_out, temporal
from seqcl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """From a log to training, validation and test windows.

    Args:
        split: leave_one_out (each user's last item tests, the one before validates), temporal (two global cuts in time), or
            given (made elsewhere: a column, or a folder with train, valid and test files).
        windows: training rows: last (the newest max_len items, all positions in one pass), sliding (all of a long row,
            in overlapping pieces), or prefix (a row for every target).
        max_len: longest input, in items.
        k_core: drop users and items with fewer interactions, again and again until none is left; 0 keeps all.
        min_length: drop users with fewer interactions, together with the k-core.
        duplicates: a user's repeats of an item: keep all, or only the first or the last in time. With last, training lacks what
            comes again in validation or test.
        format: atomic, csv, json, parquet, text or tsv; found from the file if not given.
        columns: columns of a file without a header, from the left, such as user,item,_,time; found by content if not given.
        user: column of the user ids; found by its usual names if not given.
        item: column of the item ids, or of lists of them; found by its usual names if not given.
        time: column of the times; found by its usual names, else by content, if not given.
        order: time, or file: the rows are in time order as they stand, and times are not read.
        where: keep the rows for which this holds, such as "event == 'transaction'".
        min_rating: keep the rows with at least this rating.
        split_column: column with the part of each row: train, valid or test; found by its usual names; given split only.
        valid: fraction of the interactions that validates, the newest ones before the test; 1 or more is the second at
            which validation begins; temporal split only.
        test: fraction of the interactions that tests, the newest ones; 1 or more is the second at which the test begins;
            temporal split only.
        targets: predict each user's first item after a cut, or all of them; temporal split only.
        cold: predict items that training has never seen as well; temporal split only.
        cold_items: fraction of the items that is taken out of training, drawn at random, the same items for every model;
            the slice `target_training` shows how they are found.
        train_users: fraction of the users that training sees, drawn at random, the same ones for every model; validation and
            test keep all.
        noise: fraction of the training interactions whose item is replaced by one drawn at random, the same for every model;
            validation and test find them in histories, never as targets.

    Raises:
        UserError: a fraction is out of range.
    """

    split: Literal["leave_one_out", "temporal", "given"] = "leave_one_out"
    windows: Literal["last", "sliding", "prefix"] = "sliding"
    max_len: int = 50
    k_core: int = 0
    min_length: int = 1
    duplicates: Literal["keep", "first", "last"] = "keep"
    format: str | None = None
    columns: str | None = None
    user: str | None = None
    item: str | None = None
    time: str | None = None
    order: Literal["time", "file"] = "time"
    where: str | None = None
    min_rating: float | None = None
    split_column: str | None = None
    valid: float = 0.1
    test: float = 0.1
    targets: Literal["first", "all"] = "first"
    cold: bool = False
    cold_items: float = 0.0
    train_users: float = 1.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("cold_items", "noise"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"--data.{name} {getattr(self, name)}: must be from 0 to below 1")
        if not 0 < self.train_users <= 1:
            raise UserError(f"--data.train_users {self.train_users}: must be above 0 and at most 1")

    def from_frame(self, frame: Any) -> Interactions:
        """The interactions of a data frame; its columns are those asked for, else the usual names.

        Raises:
            UserError: a column is missing, or a value is no id or time.
        """
        options = self.read_options()
        for name in ("format", "columns"):
            if options.pop(name) is not None:  # type: ignore[misc]
                raise UserError(
                    f"--data.{name} is for files; name the columns of a data frame with data.user, data.item and data.time"
                )
        return Interactions.from_frame(frame, **options)  # type: ignore[misc]

    def read_options(self) -> ReadOptions:
        """The options of `read`."""
        return ReadOptions(
            format=self.format,
            columns=self.columns,
            user=self.user,
            item=self.item,
            time=self.time,
            order=self.order,
            where=self.where,
            min_rating=self.min_rating,
            given=self.split == "given",
            split_column=self.split_column,
        )

    def sequences(self, source: str | Path | Interactions) -> Sequences:
        """The packed log of a data set: a name, a path, or interactions already read.

        Raises:
            UserError: as `load_sequences`.
        """
        return load_sequences(
            source,
            k_core=self.k_core,
            min_length=self.min_length,
            duplicates=self.duplicates,
            **self.read_options(),
        )

    def split_windows(self, sequences: Sequences) -> Split:
        """The training, validation and test windows of a packed log.

        Raises:
            UserError: as `leave_one_out`, `temporal`, `keep_users` and `hold_out_items`; or no user has a training target.
        """
        if self.split == "leave_one_out":
            split = leave_one_out(sequences, max_len=self.max_len, windows=self.windows)
            if not len(split.train):
                raise UserError(
                    f"{sequences.name}: nothing to train on: no user has four items, of which two are held out, nor two "
                    "items alone; use --data.split temporal, or a log with longer histories"
                )
        elif self.split == "given":
            split = given(sequences, max_len=self.max_len, windows=self.windows)
        else:
            split = temporal(
                sequences,
                max_len=self.max_len,
                windows=self.windows,
                valid=self.valid,
                test=self.test,
                targets=self.targets,
                cold=self.cold,
            )
        split = keep_users(add_noise(split, self.noise), self.train_users)
        return hold_out_items(split, sequences, self.cold_items)
