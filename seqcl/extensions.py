"""What other projects bring: encoders named `prefix:name`, and configuration files; nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

ENCODERS: dict[str, Callable[[str], Callable[..., Any]]] = {}
"""By prefix, what gives the encoder class of a name; filled where all rooms are known, in `seqcl/__init__.py`."""

CONFIG_FILES: dict[str, Callable[[Path], dict[str, Any]]] = {}
"""By option, what gives our options, by dotted name, out of another project's configuration file; filled there too."""


def foreign(name: str) -> Callable[..., Any] | None:
    """The encoder class of `prefix:name`, None where the prefix is nobody's.

    Raises:
        UserError: the project has no such encoder, or is not installed.
    """
    prefix, colon, rest = name.partition(":")
    return ENCODERS[prefix](rest) if colon and prefix in ENCODERS else None
