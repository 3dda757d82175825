"""List the contents of a run folder, without its model being made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seqcl.config.files import read
from seqcl.data import Sequences
from seqcl.errors import UserError
from seqcl.experiment.keeping import PACKED

READ = ("columns", "order", "dropped")
"""Words of the protocol that say how the log was read."""


def holdings(folder: Path) -> dict[str, Any]:
    """List the contents of a run: its log and how that was read, and bytes on disk, by file or folder.

    Args:
        folder: the run.

    Raises:
        UserError: its configuration, its results or its packed log is damaged.
    """
    settings = read(folder / "config.yaml", stored=True).settings
    packed, results = folder / PACKED, folder / "metrics.json"
    try:
        metrics = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
        protocol = dict(metrics.get("protocol", {}))
    except (OSError, ValueError, RecursionError, AttributeError, TypeError):
        raise UserError(f"{results}: it is not as it was written") from None
    sizes = {entry.name: size_of(entry) for entry in sorted(folder.iterdir())}
    linked = sum(file.stat().st_size for file in packed.glob("*") if file.stat().st_nlink > 1)
    return {
        "run": str(folder),
        **{word: settings[word].value for word in ("model", "dataset") if word in settings},
        "finished": bool(metrics),
        "whole": packed.exists(),  # else it needs its data set
        "log": Sequences.load(packed).stats() if packed.exists() else metrics.get("data"),
        "read": {word: protocol[word] for word in READ if word in protocol},
        "bytes": sizes | {"all": sum(sizes.values()), "of these linked to the cache or other runs": linked},
    }


def size_of(place: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file())
