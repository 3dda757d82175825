"""Names of models, encoders, views, objectives, next-item losses and metrics: ours in tables, anyone's by `register`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from seqcl.errors import UserError, unknown
from seqcl.parts import Part, declared

KINDS = ("model", "encoder", "view", "objective", "loss", "metric")
"""The kinds of part that can be registered."""

KIND_OF = {"encoder": "encoder", "objective": "objective", "views": "view"}
"""The sections of a recipe whose component is chosen by name (`--encoder GRU`), and the kind of part that each takes."""

CONFIG_FILES: dict[str, Callable[[Path], Mapping[str, Any]]] = {}
"""By option, a function that reads another project's configuration file as our options; its docstring is the option's help."""


class Store(Protocol):
    """A collection of item vectors in an engine that searches them; `str` of it says where it is, without a password."""

    def check(self, *, kind: str | None, replace: bool) -> None:
        """Raise a UserError, before any work, where the collection cannot be written, or not with an index of this kind."""
        ...

    def write(self, folder: Path, *, kind: str | None, replace: bool) -> None:
        """Write the vectors of a bundle, with an index of one of our kinds; None: the bundle's own."""
        ...

    def index(self, vectors: str) -> AbstractContextManager[Any]:
        """Give an index to search in; a UserError where it does not hold the vectors with this sha256."""
        ...


STORES: dict[str, Callable[[str, str | None], Store]] = {}
"""By the word before the colon of `--to` and `--from`, what makes a store of the text after it and of `--collection`."""

loading: list[str] = []
"""The plugins that are being loaded, the innermost last; what registers meanwhile belongs to it."""


class Table(Mapping[str, Any]):
    """The parts of one kind by name: ours, and those that others registered.

    A name that ends in a colon stands for a family: `register("encoder", find, name="recbole:")` makes `recbole:NARM` mean
    `find("NARM")`, which is called when that name is first asked for.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.bases: tuple[type, ...] = ()
        self.ours: dict[str, Any] = {}
        self.others: dict[str, Any] = {}
        self.families: dict[str, Callable[[str], Any]] = {}
        self.sources: dict[str, str] = {}  # by registered name or family, the plugin or module that it came from

    def __getitem__(self, name: str) -> Any:
        return self.ours[name] if name in self.ours else self.others[name]

    def __iter__(self) -> Iterator[str]:
        return iter([*self.ours, *self.others])

    def __len__(self) -> int:
        return len(self.ours) + len(self.others)

    def find(self, name: str) -> Any:
        """The part of a name, also of a family.

        Raises:
            UserError: there is none; the nearest names are given.
        """
        if name in self:
            return self[name]
        prefix, colon, rest = name.partition(":")
        if colon and f"{prefix}:" in self.families:
            return self.families[f"{prefix}:"](rest)
        raise unknown(self.kind, name, [*self, *self.patterns()])

    def patterns(self) -> list[str]:
        """The families as they are shown: `recbole:NAME`."""
        return [f"{family}NAME" for family in self.families]

    def name_of(self, part: Any) -> str | None:
        """The first name of a part, None where it has none."""
        return next((name for name, one in self.items() if one is part), None)

    def source_of(self, name: str) -> str | None:
        """The plugin or module that brought a name; None where it is ours or nobody's."""
        return self.sources.get(name) or self.sources.get(name.partition(":")[0] + ":")


TABLES = {kind: Table(kind) for kind in KINDS}


def table(kind: str, ours: Mapping[str, Any], *bases: type) -> Table:
    """The table of a kind with our own parts in it; what others register must derive from one of `bases`, if any is given."""
    made = TABLES[kind]
    made.ours, made.bases = dict(ours), bases
    return made


def register(kind: str, part: Any = None, *, name: str | None = None) -> Any:
    """Give a part of your own a name, so that it can stand wherever one of ours can; also as a decorator.

        @seqcl.register("view")
        class Halve(View): ...

    A class of the same module and name replaces itself, as when a notebook's cell runs twice. With a model, the classes that
    it declares as its parts are registered too.

    Args:
        kind: model, encoder, view, objective, loss (of the next item) or metric.
        part: the class or function; without it a decorator is returned.
        name: its name; its own one if not given. A name that ends in a colon stands for a family, see `Table`.

    Raises:
        UserError: an unknown kind, a name that is taken, or a part that is not of the kind.
    """
    if kind not in TABLES:
        raise unknown("kind of part", kind, KINDS)
    if part is None:
        return lambda one: register(kind, one, name=name)
    if not (inspect.isclass(part) or inspect.isroutine(part)):
        raise UserError(f"{kind}: expected a class, a function or part(Class, option=value), not {part!r}")
    found, label = TABLES[kind], name or part.__name__
    source = loading[-1] if loading else str(part.__module__)
    if label.endswith(":"):
        known: Any = found.families.get(label)
    else:
        known = found.get(label)
        if found.bases and not (inspect.isclass(part) and issubclass(part, found.bases)):
            wanted = " or ".join(f"{base.__module__.rpartition('.')[0]}.{base.__name__}" for base in found.bases)
            raise UserError(f"{label} cannot be registered as {kind}: it must be a class derived from {wanted}")
        if kind in ("loss", "metric"):
            check_signature(kind, label, part)
    if known is not None and (label in found.ours or identity(known) != identity(part)):
        owner = "seqcl's own" if label in found.ours else f"of {found.sources[label]}"
        raise UserError(f"the {kind} name {label!r} is taken, it is {owner}: register yours under another name=")
    if kind == "model":
        register_parts(part)
    (found.families if label.endswith(":") else found.others)[label] = part
    found.sources[label] = source
    return part


def register_parts(recipe: Any) -> None:
    """Register the classes that a recipe declares as encoder, objective or views, where they have no name yet."""
    for section, kind in KIND_OF.items():
        bare = getattr(recipe, section, None)
        if inspect.isclass(bare):
            raise UserError(f"{recipe.__name__}: write {section} = part({bare.__name__}), not the class alone")
        own: Part | None = declared(recipe).get(section)
        if own is not None and inspect.isclass(own.component) and TABLES[kind].name_of(own.component) is None:
            register(kind, own.component)


def check_signature(kind: str, label: str, part: Any) -> None:
    """Refuse a loss or a metric that cannot be called as ours are."""
    first = {"loss": ("states", "table", "targets"), "metric": ("ranks", "k")}[kind]
    given = set() if kind == "metric" else {"negatives", "log_q", "correction", "t", "smoothing", "items", "real"}
    parameters = inspect.signature(part).parameters.values()
    named = [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    placed, rest = named[: len(first)], named[len(first) :]
    wrong = [one for one in placed if one.name in given or one.kind is one.KEYWORD_ONLY]
    wrong += [one for one in rest if one.default is one.empty and one.name not in given]
    if wrong or (len(placed) < len(first) and not any(one.kind is one.VAR_POSITIONAL for one in parameters)):
        more = f" and, by these names, {', '.join(sorted(given))}" if given else ""
        raise UserError(
            f"{label} cannot be registered as {kind}: its parameters are ({', '.join(one.name for one in parameters)}); "
            f"a {kind} takes {', '.join(first)}{more}"
        )


def identity(part: Any) -> tuple[str, str]:
    """Module and name of a class or function."""
    return str(part.__module__), str(part.__qualname__)
