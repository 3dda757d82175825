"""`seqcl export --to` and `seqcl recommend --from`: an engine that keeps and searches vectors."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from seqcl import plugins, registry
from seqcl.errors import UserError, unknown

if TYPE_CHECKING:
    from seqcl.retrieval.bundle import Bundle

EXPORT_OPTIONS = {
    "--to": "the vectors go to Milvus too: milvus:http://HOST:19530, or milvus:./NAME.db",
    "--collection": "name of the collection there (default: seqcl_items)",
}
RECOMMEND_OPTIONS = {
    "--from": "an exported RUN asks for the items there, as in export --to",
    "--collection": EXPORT_OPTIONS["--collection"],
}


def store_of(option: str, text: str, collection: str | None) -> registry.Store:
    """The store that `--to` or `--from` names.

    Raises:
        UserError: nobody has brought one of this kind, or it does not take this text.
    """
    plugins.load_installed()
    kind, _, rest = text.partition(":")
    if kind not in registry.STORES:
        raise UserError(f"{option} {unknown('store', kind, registry.STORES)}; an example is milvus:./items.db")
    return registry.STORES[kind](rest, collection)


def target(chosen: argparse.Namespace) -> registry.Store | None:
    """The store that an export goes to, found fit for it before any work; None without --to.

    Raises:
        UserError: it cannot be reached or written, or an option has no use without --to.
    """
    if chosen.to is None:
        if chosen.replace or chosen.collection:
            raise UserError(f"--{'replace' if chosen.replace else 'collection'} has no use without --to")
        return None
    store = store_of("--to", chosen.to, chosen.collection)
    store.check(kind=chosen.index, replace=chosen.replace)
    return store


def send(chosen: argparse.Namespace, folder: Path, store: registry.Store) -> None:
    """Write the vectors of a bundle to a store.

    Raises:
        UserError: the store refuses them; the bundle is whole, and the message says how to send it again.
    """
    try:
        store.write(folder, kind=chosen.index, replace=chosen.replace)
    except UserError as error:
        if not chosen.folder:
            raise
        more = f" --collection {chosen.collection}" if chosen.collection else ""
        again = f"{folder} is whole: seqcl export {folder} --to {store}{more} sends it again"
        raise UserError(f"{error}; {again}") from None


@contextmanager
def asked(bundle: Bundle, chosen: argparse.Namespace) -> Iterator[None]:
    """Let a bundle ask the store of --from in place of its own index; without --from, nothing changes.

    Raises:
        UserError: the store cannot be reached, or holds the vectors of another bundle.
    """
    source = getattr(chosen, "from")
    if source is None:
        if chosen.collection:
            raise UserError("--collection has no use without --from")
        yield
        return
    store = store_of("--from", source, chosen.collection)
    with store.index(bundle.manifest["files"]["items.npy"]) as bundle.index:
        yield
