"""The rooms import in one direction only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import seqcl

ROOT = Path(seqcl.__file__).parent
LAYERS = [
    {
        "errors",
        "version",
        "types",
        "machine",
        "processes",
        "blocks",
        "disk",
        "mapped",
        "parts",
        "registry",
        "plugins",
        "shapes",
    },
    {"data", "augment", "encoders", "losses"},
    {"objectives"},
    {"models", "training", "evaluation", "retrieval", "report"},
    {"config"},
    {"experiment"},
    {"integrations", "serve", "testing"},
    {"cli"},
    {"__init__", "__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Rooms of seqcl that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "seqcl":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("seqcl.")}
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_the_rooms_before_it(path):
    room = room_of(path)
    assert room in LEVEL, f"{room} has no place in the layers"
    for other in imports(path) - {room}:
        assert LEVEL.get(other, 99) < LEVEL[room] or (LEVEL[room] == 0 and LEVEL.get(other) == 0), (
            f"{room} imports {other}"
        )
