"""Write the vectors of a bundle into a new collection; its alias, the name that readers use, is switched once it is whole."""

from __future__ import annotations

import logging
import math
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from seqcl.disk import DAY_SECONDS
from seqcl.errors import UserError, unknown
from seqcl.integrations.milvus.target import TYPES, Target
from seqcl.mapped import mapped_array
from seqcl.retrieval.manifest import compare_files, read_manifest

log = logging.getLogger("seqcl")

BATCH_BYTES = 1 << 22
"""Bytes of vectors that are sent at a time; a server refuses messages past 64 MiB."""
LONGEST_ID = 1024
"""Bytes of a raw id: 256 characters of up to four."""


def write(folder: Path, target: Target, *, kind: str | None = None, replace: bool = False) -> None:
    """Write the vectors of a bundle into a new collection and switch the alias to it; until then the old one answers.

    Args:
        folder: the bundle.
        target: where to.
        kind: flat, ivf, hnsw or ivfpq; None: as in the bundle.
        replace: drop the collection that the alias had.

    Raises:
        UserError: no bundle is there, or one that was changed; or as `Target.check`.
    """
    manifest = read_manifest(folder)
    try:
        compare_files(folder, manifest["files"], names=manifest["files"])
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    kind = manifest["index"] if kind is None else kind
    if kind not in TYPES:
        raise unknown("index", kind, TYPES)
    vectors = mapped_array(folder / "items.npy")  # (N, D)
    item_ids = mapped_array(folder / "item_ids.npy")
    target.check(kind=kind, replace=replace)
    with target.client() as client:
        old = target.written(client)
        when = f"{int(time.time()):08x}{uuid.uuid4().hex[:8]}"
        new = f"{target.collection}_{manifest['files']['items.npy'][:16]}_{when}"
        sweep(client, target, old)
        try:
            fill(client, new, vectors, item_ids, kind)
            (client.create_alias if old is None else client.alter_alias)(new, target.collection)
        except BaseException:
            with suppress(Exception):
                drop(client, new)
            raise
        if old is not None:
            drop(client, old)


def fill(client: Any, name: str, vectors: np.ndarray, item_ids: np.ndarray, kind: str) -> None:
    """Make a collection, send the items, index and load it, and count what arrived.

    Raises:
        UserError: not all items arrived.
    """
    from pymilvus import DataType
    from rich.console import Console
    from rich.progress import Progress

    size, dim = vectors.shape
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    raw = {"datatype": DataType.INT64} if item_ids.dtype.kind == "i" else {"datatype": DataType.VARCHAR, "max_length": LONGEST_ID}  # fmt: skip
    schema.add_field("item", **raw)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
    client.create_collection(name, schema=schema)
    step = max(1, BATCH_BYTES // (4 * dim + 64))
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        for start in progress.track(range(0, size, step), description="items to Milvus"):
            rows = zip(item_ids[start : start + step].tolist(), vectors[start : start + step], strict=True)
            client.insert(
                name, [{"id": start + n, "item": item, "vector": row} for n, (item, row) in enumerate(rows, 1)]
            )
    client.flush(name)
    params = client.prepare_index_params()
    options = build_options(kind, size, dim)
    params.add_index("vector", index_name="vector", index_type=TYPES[kind], metric_type="IP", params=options)
    client.create_index(name, params)
    client.load_collection(name)
    arrived = client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"]
    if arrived != size:
        raise UserError(f"Milvus has {arrived:,} of {size:,} items after they were sent; export again")


def build_options(kind: str, size: int, dim: int) -> dict[str, int]:
    """The options of an index, like those of `FaissIndex`; a code of ivfpq has a byte for four coordinates or more."""
    lists = max(1, min(int(4 * math.sqrt(size)), size // 39))
    codes = next(count for count in range(max(1, dim // 4), 0, -1) if dim % count == 0)
    ways = {"hnsw": {"M": 32, "efConstruction": 40}, "ivf": {"nlist": lists}, "ivfpq": {"nlist": lists, "m": codes, "nbits": 8}}  # fmt: skip
    return ways.get(kind, {})


def sweep(client: Any, target: Target, current: str | None) -> None:
    """Drop what a killed export of this alias left behind more than a day ago."""
    for name in client.list_collections():
        found = target.parts(name)
        if found and name != current and int(found[2], 16) < time.time() - DAY_SECONDS:
            drop(client, name)


def drop(client: Any, name: str) -> None:
    """Drop a collection, unless somebody gave it an alias too."""
    if client.list_aliases(name)["aliases"]:
        log.warning("the collection %s is kept, as it has another alias", name)
    else:
        client.drop_collection(name)
