"""Milvus through a door that is open to everyone: `--to milvus:URI` and `--from milvus:URI`.

This module is the entry point `milvus` in the group `seqcl.plugins`. The client of Milvus is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seqcl import registry
from seqcl.errors import UserError


class Milvus:
    """A collection in Milvus, as a store of `registry.STORES`."""

    def __init__(self, uri: str, collection: str | None) -> None:
        from seqcl.integrations.milvus import COLLECTION, Target

        self.target = Target(uri=uri, collection=collection or COLLECTION)

    def __str__(self) -> str:
        return str(self.target)

    def check(self, *, kind: str | None, replace: bool) -> None:
        self.target.check(kind=kind, replace=replace)

    def write(self, folder: Path, *, kind: str | None, replace: bool) -> None:
        from seqcl.integrations.milvus import write

        write(folder, self.target, kind=kind, replace=replace)

    @contextmanager
    def index(self, vectors: str) -> Iterator[Any]:
        from seqcl.integrations.milvus import MilvusIndex

        if self.target.local and not Path(self.target.uri).exists():  # a client would make it
            raise UserError(f"{self.target}: there is no such file; seqcl export DIR --to {self.target} writes it")
        with self.target.client() as client:
            yield MilvusIndex(client, self.target, vectors=vectors)


registry.STORES["milvus"] = Milvus
