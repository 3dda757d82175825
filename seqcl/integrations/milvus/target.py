"""Where a collection is: the server or file, and the alias that readers use."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from seqcl.errors import UserError, brief

COLLECTION = "seqcl_items"
TOKEN = "MILVUS_TOKEN"
"""The variable with the token of a server; it is kept nowhere else."""
CONNECT_SECONDS = 30
TYPES = {"flat": "FLAT", "ivf": "IVF_FLAT", "hnsw": "HNSW", "ivfpq": "IVF_PQ"}
"""The names of our indexes in Milvus."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A collection in Milvus.

    Args:
        uri: http(s)://HOST:PORT, or a path that ends in .db, which milvus-lite keeps on this machine.
        collection: the alias that readers use.

    Raises:
        UserError: the URI or the name is none that Milvus takes, or the extra `milvus` is not installed.
    """

    uri: str
    collection: str = COLLECTION

    def __post_init__(self) -> None:
        if not self.local and not re.match(r"(https?|tcp|unix)://.", self.uri):
            raise UserError(
                f"{self}: give a server, milvus:http://HOST:19530, or a file of milvus-lite, milvus:./NAME.db"
            )
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,199}", self.collection):
            name = brief(repr(self.collection), 60)
            raise UserError(f"--collection {name}: a name has letters, digits and _, and begins with no digit")
        for package in ("pymilvus", *(["milvus_lite"] if self.local else [])):
            if find_spec(package) is None:
                raise UserError(f"{self} needs {package}: pip install 'seqcl[milvus]'")

    @property
    def local(self) -> bool:
        """True for a file of milvus-lite."""
        return self.uri.endswith(".db") and "://" not in self.uri

    def __str__(self) -> str:
        """The URI without a password that stands in it."""
        return brief(f"milvus:{without_password(self.uri)}", 80)

    @contextmanager
    def client(self) -> Iterator[Any]:
        """A connected client; what Milvus refuses while it is open becomes one line.

        Raises:
            UserError: the server cannot be reached, or refuses something.
        """
        from pymilvus import MilvusClient, MilvusException

        with quiet("pymilvus", "milvus_lite", "grpc"):
            client = None
            try:
                client = MilvusClient(self.uri, token=os.environ.get(TOKEN, ""), timeout=CONNECT_SECONDS)
                yield client
            except MilvusException as error:
                busy = "; is it open in another process?" if error.message == "Open local milvus failed" else ""
                raise UserError(f"{self}: {brief(without_password(error.message))}{busy}") from None
            finally:
                if client is not None:
                    client.close()

    def check(self, *, kind: str | None, replace: bool) -> None:
        """Find out before any work whether the collection can be written, with an index of this kind.

        Raises:
            UserError: milvus-lite has no such index; the collection is there already and is not to be replaced, or seqcl did
                not write it; or as `client`.
        """
        if self.local and kind == "ivfpq":
            raise UserError(f"{self}: milvus-lite has no ivfpq; give --index flat, ivf or hnsw, or a server")
        with self.client() as client:
            current = self.written(client)
        if current is not None and not replace:
            raise UserError(
                f"{self} has {self.collection} already: add --replace to put this export in its place, "
                "or name another one with --collection"
            )

    def written(self, client: Any) -> str | None:
        """The collection behind the alias; None if there is no such alias.

        Raises:
            UserError: a collection or an alias of this name is there that seqcl did not write.
        """
        if self.collection not in client.list_aliases()["aliases"]:
            if self.collection not in client.list_collections():
                return None
            found = self.collection
        else:
            found = client.describe_alias(self.collection)["collection_name"]
        if not self.parts(found):
            raise UserError(
                f"{self}: {self.collection} is {found}, which seqcl did not write; give another --collection"
            )
        return str(found)

    def parts(self, name: str) -> re.Match[str] | None:
        """What the name of a collection of this alias tells: the hash of the vectors, and the second of its making."""
        return re.fullmatch(rf"{self.collection}_([0-9a-f]{{16}})_([0-9a-f]{{8}})[0-9a-f]{{8}}", name)


def without_password(text: str) -> str:
    """A text in which no URI has a user and a password."""
    return re.sub(r"//\S*@", "//", text)


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Keep libraries from logging the errors that they raise as well."""
    loggers = [logging.getLogger(name) for name in names]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)
