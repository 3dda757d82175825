"""Kept results: one small file of a finished run, with all that a comparison needs, for a repository or a colleague."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from seqcl import disk
from seqcl.errors import UserError, brief
from seqcl.experiment.versions import read_beside

if TYPE_CHECKING:
    from seqcl.experiment.finished import Finished

DEEPEST = 20
"""The largest rank that is kept: longer lists cannot be judged from a kept file."""

FIGURES = ("model", "protocol", "data", "test", "valid", "training", "seed", "versions", "machine", "seconds", "peak_memory_bytes")  # fmt: skip
"""The parts of metrics.json that are kept."""


def keep(run: Finished, file: Path, *, key: str) -> None:
    """Write the results of a run: the rows of the test targets found among the first `DEEPEST`, and their ranks.

    The metadata hold the configuration, without the machine's own paths, the hashes of tables and of files that options name, the
    figures, and the key of the run.

    Raises:
        OSError: the file cannot be written; the one before it is untouched.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    figures = disk.read_json(run.folder / "metrics.json", dict)
    config = {name: value for name, value in yaml.safe_load(run.config).items() if name != "runs"}
    about = {
        "config": config | {"dataset": run.data["name"]},
        "metrics": {name: figures.get(name) for name in FIGURES},
        "parameters": run.parameters,
        "beside": read_beside(run.folder),
        "deepest": DEEPEST,
        "key": key,
    }
    rows = np.flatnonzero(run.ranks <= DEEPEST)
    table = pa.table({"row": rows.astype(np.int32), "rank": run.ranks[rows].astype(np.int32)})
    with disk.whole_file(file) as beside, beside.open("wb") as stream:
        pq.write_table(table.replace_schema_metadata({"run": json.dumps(about)}), stream, compression="zstd")


def read(file: Path) -> tuple[dict[str, Any], np.ndarray]:
    """What `keep` wrote: the metadata, and the rank of every test target, (W,); one past `deepest` is past every list.

    Raises:
        UserError: there is no such file, or it is none of these.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from seqcl.data.arrow import opened

    if not file.is_file():
        raise UserError(f"{file}: there is no such file of kept results")
    try:
        with opened(file) as stream:
            table = pq.read_table(stream)
        about = json.loads(table.schema.metadata[b"run"])
        ranks = np.full(about["metrics"]["protocol"]["num_targets"], np.iinfo(np.int32).max, np.int64)
        ranks[table["row"].to_numpy()] = table["rank"].to_numpy()
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
        raise UserError(f"{file} holds no kept results: {brief(f'{type(error).__name__}: {error}')}") from None
    return {"deepest": DEEPEST, "parameters": None, "key": "", "beside": {}, **about}, ranks
