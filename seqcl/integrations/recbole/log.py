"""Turns RecBole's training data into the packed log that recipes learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from seqcl.data.sequences import Sequences
from seqcl.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

CHUNK_ROWS = 1 << 16


def training_sequences(dataset: Any) -> Sequences:
    """Collect the users' items from the training rows that RecBole has split, under RecBole's ids; user 0 has none.

    RecBole makes a row of every prefix. The rows of a user, in order, give back the sequence that they were cut from.

    Args:
        dataset: `train_data.dataset`.

    Raises:
        UserError: rows that are not the prefixes of one sequence a user, as in files that were split beforehand.
    """
    suffix, rows = dataset.config["LIST_SUFFIX"], dataset.inter_feat
    if dataset.item_list_length_field not in rows or dataset.iid_field + suffix not in rows:
        raise UserError("this data set is not split yet: give the model train_data.dataset, after data_preparation")
    order = np.argsort(rows[dataset.uid_field].numpy(), kind="stable")  # (R,), the rows of a user in the order of time
    owners, lengths = (rows[name].numpy()[order] for name in (dataset.uid_field, dataset.item_list_length_field))
    begins = np.flatnonzero(np.diff(owners, prepend=-1))  # (U',), the first row of each user
    before = np.zeros(len(owners), np.int64)
    before[begins] = lengths[begins]  # what the first row reads belongs to the sequence too
    place = np.arange(len(owners)) + np.cumsum(before)  # (R,), where each row's target stands

    def sequence(field: str) -> np.ndarray:
        """Values of a field along the sequences: the items that each user's first row reads, and every row's target."""
        values = np.empty(len(owners) + int(before.sum()), rows[field].numpy().dtype)
        values[place] = rows[field].numpy()[order]
        read = rows[field + suffix][order[begins]].numpy()  # (U', L)
        time = np.arange(read.shape[1])
        where = (place[begins] - lengths[begins])[:, None] + time
        inside = time < lengths[begins, None]
        values[where[inside]] = read[inside]
        return values

    # Files cut beforehand may have no times; `unused_col` drops them, and `numerical_features` makes pairs of them.
    timed = all(field in rows for field in (dataset.time_field, f"{dataset.time_field}{suffix}"))
    timed = timed and rows[dataset.time_field].ndim == 1
    items = sequence(dataset.iid_field).astype(np.int32)
    check_rows(items, place, lengths, rows[dataset.iid_field + suffix], order)
    counts = np.bincount(owners, minlength=dataset.user_num)
    counts[owners[begins]] += lengths[begins]
    return Sequences(
        items=items,
        offsets=np.concatenate(([0], np.cumsum(counts))),
        times=sequence(dataset.time_field).astype(np.float64) if timed else None,
        user_ids=np.arange(dataset.user_num),
        item_ids=np.arange(1, dataset.item_num),
        name=str(dataset.dataset_name),
        fingerprint="",
        user_table=feature_table(dataset, "user"),
        item_table=feature_table(dataset, "item"),
    )


def check_rows(items: np.ndarray, place: np.ndarray, lengths: np.ndarray, read: Any, order: np.ndarray) -> None:
    """Raise UserError unless every row reads what stands before its target in the sequence."""
    time = np.arange(read.shape[1])
    for low in range(0, len(place), CHUNK_ROWS):
        part = slice(low, low + CHUNK_ROWS)
        where = (place[part] - lengths[part])[:, None] + time  # (C, L)
        inside = time < lengths[part, None]
        expected = np.where(inside, items[np.clip(where, 0, len(items) - 1)], 0)
        if not np.array_equal(expected, read[order[part]].numpy()):
            raise UserError(
                "the training rows of this data set are not the prefixes of one sequence a user, so that it cannot be told what "
                "training knows: let RecBole split the log itself (no benchmark_filename, eval_args order TO)"
            )


def feature_table(dataset: Any, kind: str) -> pd.DataFrame | None:
    """Make a table of the features that RecBole has loaded: a row for items 1..N, or for users 0..U - 1."""
    features = getattr(dataset, f"{kind}_feat")
    if features is None:
        return None
    import pandas as pd

    own, first = (dataset.iid_field, 1) if kind == "item" else (dataset.uid_field, 0)
    columns: dict[str, Any] = {}
    for field in features.columns:
        if field == own:
            continue
        values = features[field].numpy()[first:]
        if "token" in str(dataset.field2type[field].value):
            words = dataset.field2id_token[field]
            if values.ndim == 1:
                columns[field] = [words[value] if value else None for value in values]
            else:
                columns[field] = [[words[value] for value in row if value] for row in values]
        else:
            columns[field] = list(values) if values.ndim > 1 else values.astype(np.float64)
    number = dataset.item_num if kind == "item" else dataset.user_num
    return pd.DataFrame(columns, index=np.arange(first, number))
