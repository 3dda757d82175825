"""The configurations that come with seqcl, found by name: in the package, or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

from seqcl.errors import UserError, unknown

PACKAGE = Path(__file__).parents[1]
PLACES = (PACKAGE / "configs", PACKAGE.parent / "configs")


def folder() -> Path | None:
    """The folder of the configurations that come with seqcl; None where there is none."""
    return next((place for place in PLACES if (place / "base" / "beauty.yaml").is_file()), None)


def names() -> list[str]:
    """Their names, such as beauty-cl4rec and papers/duorec."""
    place = folder()
    return sorted(file.relative_to(place).with_suffix("").as_posix() for file in place.rglob("*.yaml")) if place else []


def located(text: str, option: str = "--config") -> Path:
    """The file that a word names: a path, or else a configuration that comes with seqcl.

    Raises:
        UserError: it is no path and no name.
    """
    path, place = Path(text).expanduser(), folder()
    if path.is_file() or path.suffix in (".yaml", ".yml", ".json") or place is None:
        return path
    if text not in names():
        raise UserError(f"{option} {text}: no such file, and {unknown('configuration', text, names())}")
    return place / f"{text}.yaml"
