"""Loading other people's parts: a file or module that the user names, or what is installed under an entry point.

Nothing is loaded because a run folder or a bundle says so: those only say what they need.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from seqcl import disk, registry
from seqcl.errors import UserError

NEEDS = "plugins.json"
"""The file of a run folder that lists the parts of others that the run needs, and where they came from."""

GROUP = "seqcl.plugins"
"""The group of entry points; each value is a module that registers its parts when it is imported."""

log = logging.getLogger("seqcl")

named: set[str] = set()
"""The modules of installed plugins that the user has named in this process."""


def load(name: str, folder: Path | None = None) -> None:
    """Import a plugin, once a process: a file ending in .py, a module that Python can find, or an installed one.

    Args:
        name: the path of a file, a dotted module name, or the name of an installed plugin, such as recbole.
        folder: where a relative path begins; None: the current folder.

    Raises:
        UserError: no such file or module, or it fails; its own error is named, and where it is.
    """
    if name.endswith(".py"):
        path = ((folder or Path()) / Path(name).expanduser()).resolve()
        load_file(path)
        return
    installed = {point.name: point.module for point in entry_points(group=GROUP)}
    if name in {*installed, *installed.values()}:
        load_installed()
        named.add(installed.get(name, name))
        return
    if not all(word.isidentifier() for word in name.split(".")):
        raise UserError(
            f"plugin {name!r}: expected the path of a file that ends in .py, or a module such as my_package.parts"
        )
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # as `python -m` does, for a package beside the run
    with_source(name, lambda: importlib.import_module(name))


def load_all(names: Iterable[str], folder: Path | None = None) -> None:
    """Import several plugins, and those that installed packages declare."""
    load_installed()
    for name in names:
        load(name, folder)


@cache
def load_file(path: Path) -> None:
    """Import a file as a module of its own."""
    if not path.is_file():
        raise UserError(f"plugin {path}: no such file")
    if (other := module_file(path.stem)) == path and path.stem in sys.modules:
        return  # the caller has imported it
    if path.stem in sys.modules or other not in (None, path):
        raise UserError(f"plugin {path}: there is a module {path.stem!r} already, {other}: give the file another name")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module, loader = importlib.util.module_from_spec(spec), spec.loader
    sys.modules[path.stem] = module  # a dataclass looks for its module there
    try:
        with_source(str(path), lambda: loader.exec_module(module))
    except BaseException:
        del sys.modules[path.stem]
        raise


def module_file(name: str) -> Path | str | None:
    """The file of a module that is loaded or could be; None where there is no such module."""
    if name in sys.modules:
        found = getattr(sys.modules[name], "__file__", None)
    else:
        spec = None if "." in name else importlib.util.find_spec(name)
        if spec is None:
            return None
        found = spec.origin
    return Path(found).resolve() if found else "without a file"


def with_source(name: str, work: Callable[[], object]) -> None:
    """Run an import; what it registers belongs to the plugin `name`."""
    registry.loading.append(name)
    try:
        work()
    except UserError as error:
        raise UserError(f"plugin {name}: {error}") from error
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        raise UserError(
            f"plugin {name}: it cannot be imported: {type(error).__name__}: {error}{place(error)}"
        ) from error
    finally:
        registry.loading.pop()


def place(error: BaseException) -> str:
    """File and line in which an error was raised."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}:{error.lineno})"
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    outside = [frame for frame in frames if not frame[0].startswith("<frozen")]
    return f" ({outside[-1][0]}:{outside[-1][1]})" if outside else ""


@cache
def load_installed() -> None:
    """Import every plugin that an installed package declares, once a process; one that fails is named in a warning."""
    for point in entry_points(group=GROUP):
        owner = point.dist.name if point.dist else point.value
        try:
            with_source(point.module, point.load)
        except UserError as error:
            log.warning("the plugin %s of %s is left out: %s", point.name, owner, error)


def write_needs(folder: Path, needs: Iterable[tuple[str, str, str]]) -> None:
    """Note in a run folder the kind, name and source of each part that is not ours; without any, write nothing."""
    found = [{"kind": kind, "name": name, "source": source} for kind, name, source in needs]
    if found:
        disk.write_text(folder / NEEDS, json.dumps(found, indent=2) + "\n")


def unnamed(kind: str, name: str) -> str | None:
    """The installed plugin that would make a part from a name such as `recbole:NARM`; None if the user has named it.

    Such a family makes classes of another library with the options of a file, so a file alone must not ask for them.
    """
    table = registry.TABLES[kind]
    source = None if name in table else table.source_of(name)
    owners = {point.module: point.name for point in entry_points(group=GROUP)}
    return owners.get(source) if source and source not in named else None


def words_for(needs: Iterable[tuple[str, str, str]]) -> str:
    """The words of a command that bring the parts of a run back: " --plugin my_parts.py --plugin recbole"."""
    return "".join(f" {word}" for word in list_of_words(needs))


def list_of_words(needs: Iterable[tuple[str, str, str]]) -> list[str]:
    """The same words one by one; a path may have a space in it."""
    owners = {point.module: point.name for point in entry_points(group=GROUP)}
    found = [
        owners.get(source, source)
        for kind, name, source in needs
        if source != "__main__" and (source not in owners or name not in registry.TABLES[kind])
    ]
    return [word for name in dict.fromkeys(found) for word in ("--plugin", name)]


def check_named(kind: str, name: str, folder: Path) -> None:
    """Refuse a run with a part of a family, such as recbole:NARM, unless the user has named its plugin.

    Raises:
        UserError: says what to add.
    """
    if plugin := unnamed(kind, name):
        raise UserError(
            f"{folder} needs the {kind} {name!r} of the plugin {plugin}: give it with --plugin {plugin} or, in Python, "
            f"plugins=[{plugin!r}]. No class of another library is made because a run folder says so"
        )


def check_needs(folder: Path) -> None:
    """Refuse to read a run whose parts are not here; nothing is imported for it.

    Raises:
        UserError: names the part, where it came from, and how to give it.
    """
    path = folder / NEEDS
    for need in disk.read_json(path, list) if os.path.lexists(path) else ():
        words = [need.get(word) for word in ("kind", "name", "source")] if isinstance(need, dict) else []
        if len(words) != 3 or not all(isinstance(word, str) for word in words) or words[0] not in registry.TABLES:
            raise UserError(f"{path}: it does not list kind, name and source of parts, as it was written")
        kind, name, source = map(str, words)
        check_named(kind, name, folder)
        try:
            registry.TABLES[kind].find(name)
        except UserError:
            way = f"give it with --plugin {source} or, in Python, plugins=[{source!r}]"
            if source == "__main__":
                way = "it was made in a script or notebook: register it before, or put it into a file of its own and give that with --plugin"
            raise UserError(
                f"{folder} needs the {kind} {name!r} of {source}: {way}. "
                "Nothing is imported because a run folder says so"
            ) from None
