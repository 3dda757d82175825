"""Bundles on a hub of models: pushed with a card of their figures, pulled and compared with their hashes."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from seqcl.disk import whole_folder
from seqcl.errors import UserError, brief
from seqcl.retrieval.manifest import MANIFEST, compare_files, read_manifest


@contextmanager
def hub(what: str) -> Iterator[Any]:
    """A client of the hub that HF_ENDPOINT names, with the token of HF_TOKEN or of a login; its errors are told in one line.

    Raises:
        UserError: the package is not installed, or the hub refuses or cannot be reached.
    """
    if find_spec("huggingface_hub") is None:
        raise UserError("hub needs huggingface-hub: pip install 'seqcl[hub]'")
    from huggingface_hub import HfApi

    try:
        yield HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="seqcl")
    except UserError:
        raise
    except Exception as error:  # those of the client, of its HTTP library, and of the disk
        raise UserError(f"{what}: {type(error).__name__}: {brief(error)}") from None


def push(folder: Path, name: str, *, private: bool = False, revision: str | None = None) -> str:
    """Send a bundle to the hub, in one commit, with a card made of its figures; give its address.

    Args:
        folder: an exported run; its files are compared with their hashes first.
        name: OWNER/NAME on the hub, made if it is not there.
        private: make it for its owner alone, where it is new.
        revision: a branch; None: main.

    Raises:
        UserError: the name is not OWNER/NAME, the bundle is not whole, or the hub refuses it.
    """
    check_name(name)
    with hub(f"hub push {name}") as client:
        from huggingface_hub import CommitOperationAdd

        manifest = read_manifest(folder)
        compare_files(folder, manifest["files"], names=manifest["files"])
        where = client.create_repo(name, private=private, exist_ok=True)
        files = [CommitOperationAdd(one, str(folder / one)) for one in (*manifest["files"], MANIFEST)]
        files.append(CommitOperationAdd("README.md", card(manifest, name).encode()))
        message = f"{manifest.get('model', 'A bundle')} of seqcl"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*commit a data file")  # items.parquet
            client.create_commit(name, files, commit_message=message, revision=revision)
        return str(where)


def pull(name: str, folder: Path, *, revision: str | None = None) -> Path:
    """Fetch a bundle; it appears whole, and compared with its hashes, or not at all.

    Args:
        name: OWNER/NAME on the hub.
        folder: a new folder.
        revision: a branch, a tag or a commit; None: main.

    Raises:
        UserError: the name is not OWNER/NAME, the folder is there already, the hub has no such bundle, or a file is not what its manifest says.
    """
    check_name(name)
    if folder.exists():
        raise UserError(f"{folder} is there already: give a new folder")
    with tempfile.TemporaryDirectory() as place, hub(f"hub pull {name}") as client:
        fetched = Path(client.snapshot_download(name, revision=revision, local_dir=place))
        try:
            manifest = read_manifest(fetched)
            compare_files(fetched, manifest["files"], names=manifest["files"])
        except UserError as error:
            raise UserError(f"hub pull {name}: {str(error).replace(place, name)}") from None
        with whole_folder(folder) as part:
            for file in (*manifest["files"], MANIFEST):
                shutil.copyfile(fetched / file, part / file)
    return folder


def check_name(name: str) -> None:
    """Refuse a name that no hub takes, before any work.

    Raises:
        UserError: it is not OWNER/NAME.
    """
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII):
        raise UserError(f"hub: {name!r} is no name of a bundle: give OWNER/NAME, such as shop/beauty-sasrec")


def card(manifest: Mapping[str, Any], name: str) -> str:
    """The card of a bundle: its figures with their protocol, and how to ask it."""
    model, data = manifest.get("model") or "a model", dict(manifest.get("data") or {})
    figures, protocol = dict(manifest.get("test") or {}), dict(manifest.get("protocol") or {})
    dataset = {"type": str(data.get("name", "log")), "name": str(data.get("name", "log"))}
    results = [{"type": metric, "value": round(float(value), 4)} for metric, value in figures.items()]
    head = {
        "library_name": "seqcl",
        "tags": ["recommendation", "sequential-recommendation", "contrastive-learning"],
        "model-index": [
            {
                "name": model,
                "results": [{"task": {"type": "recommendation"}, "dataset": dataset, "metrics": results}]
                if results
                else [],
            }
        ],
    }
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {model} on {dataset['name']}",
        "",
        f"A bundle of [seqcl](#ask-it): {manifest['items']:,} items, vectors of width {manifest['dim']}, index {manifest['index']}.",
        "",
        *table("figure, on test", {key: f"{value:.4f}" for key, value in figures.items()}),
        *table("protocol", protocol),
        *table("data", data),
        "## Ask it",
        "",
        f"    pip install 'seqcl[hub]' && seqcl hub pull {name} bundle",
        "    seqcl recommend bundle --items ID,ID",
        "",
    ]
    return "\n".join(lines)


def table(title: str, values: Mapping[str, Any]) -> list[str]:
    """Two columns of Markdown; nothing without values."""
    rows = [f"| {key} | {brief(value, 80).replace('|', chr(92) + '|')} |" for key, value in values.items()]
    return [f"| {title} | |", "|---|---|", *rows, ""] if rows else []
