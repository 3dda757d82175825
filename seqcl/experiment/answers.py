"""Ask a run or a bundle for the lists of many users."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seqcl.data.sealed import hash_of
from seqcl.errors import UserError, check_choice
from seqcl.experiment import blended
from seqcl.experiment.run import Run
from seqcl.retrieval.asked import Asked

if TYPE_CHECKING:
    from seqcl.retrieval.bundle import Bundle

Search = Literal["exact", "index"]


def of_run(run: Run, *, allowed: Sequence[Any] | None = None) -> Asked:
    """Ask the model of a run; one with vectors is searched exactly.

    Args:
        run: a finished run.
        allowed: raw ids of the items that may be recommended, such as those in stock; None: all.

    Raises:
        UserError: none of these items is known.
    """
    weights = run.folder / "checkpoints" / "best.safetensors"
    made = [run.folder / "config.yaml", weights, blended.kept_in(run.folder), run.new_items]
    files = [path for path in made if path is not None and path.is_file()]
    asked = run.asked(allowed)
    about = {"model": hash_of_files(files, run.sequences.fingerprint), "search": "exact"}
    return replace(asked, about=about | asked.about)


def of_bundle(bundle: Bundle, *, search: str = "exact", allowed: Sequence[Any] | None = None) -> Asked:
    """Ask a bundle.

    Args:
        bundle: an exported run.
        search: exact: compare with the vectors of all items, as the run does; index: through the bundle's index.
        allowed: raw ids of the items that may be recommended, which are compared exactly; None: all.

    Raises:
        UserError: an unknown search, none of these items is known, or vectors that are not those that were exported.
    """
    check_choice("search", search, Search)
    if bundle.memories is not None and search == "index":
        raise UserError("--search index: the memories of this bundle score all items; leave that out")
    asked = bundle.asked(allowed, exact=search == "exact")
    about = {"model": hash_of_files([bundle.folder / "manifest.json"]), "search": search}
    return replace(asked, about=about | asked.about)


def hash_of_files(files: list[Path], *more: str) -> str:
    """One hash of several files, and of other texts."""
    parts: list[Any] = [hash_of(file) for file in files]
    return hashlib.sha256(json.dumps([*parts, *more]).encode()).hexdigest()
