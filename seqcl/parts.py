"""Parts: a component and the options it is made with. A constructor's signature is the schema of its options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple, overload

from seqcl.errors import UserError, unknown

Component = Callable[..., Any]
"""A class or a function that makes a part of a model."""


class FileName(NamedTuple):
    """Mark an option that names a file, so that a run keeps a copy: `table: Annotated[str | None, FileName()] = None`."""

    suffix: str = ""  # the option names a file only where it ends so


class Part:
    """A component and some of its options; the other options keep the component's own defaults.

    As a class attribute of a recipe it declares a part of that recipe. Once the recipe is built, the attribute of the
    instance is what was made of it.

    Args:
        component: a class or function.
        options: keywords of the component.

    Raises:
        UserError: the component has no such keyword; the nearest are named.
    """

    def __init__(self, component: Component, /, **options: Any) -> None:
        known = parameters_of(component)
        for name in options:
            if name not in known:
                raise unknown(f"option of {component.__name__}", name, options_of(component))
        self.component, self.options = component, options

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Make the component from its options and from what the recipe hands in."""
        return self.component(*given, **{**self.options, **named})

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"part({self.component.__name__}{options})"

    @overload
    def __get__(self, instance: None, owner: type) -> Part: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Any: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        # A module keeps its submodules elsewhere and finds them only after an AttributeError.
        if instance is None:
            return self
        raise AttributeError


def part(component: Component, /, **options: Any) -> Any:
    """Declare a part: `objective = part(MoCo, queue=1024)`; see `Part`. Typed as Any, as the instance has another type."""
    return Part(component, **options)


@cache
def parameters_of(component: Component) -> Mapping[str, inspect.Parameter]:
    """The parameters of a component by name."""
    return inspect.signature(component).parameters


def options_of(component: Component) -> dict[str, inspect.Parameter]:
    """The options of a component: its parameters with a default, by name."""
    return {name: one for name, one in parameters_of(component).items() if one.default is not inspect.Parameter.empty}


def handed_in(component: Component) -> set[str]:
    """The parameters of a component without a default: the recipe hands them in."""
    return set(parameters_of(component)) - options_of(component).keys()


def declared(recipe: Component) -> dict[str, Part]:
    """The parts that a recipe declares, its own and those it inherits, by name; None in a subclass takes one away."""
    found: dict[str, Part] = {}
    for kind in reversed(inspect.getmro(recipe)) if inspect.isclass(recipe) else ():
        for name, value in vars(kind).items():
            if isinstance(value, Part):
                found[name] = value
            elif name in found and value is None:
                del found[name]
    return found


def chosen(recipe: Component, parts: dict[str, Part]) -> dict[str, Part]:
    """The declared parts of a recipe with `parts` in the place of those of the same name.

    Raises:
        UserError: the recipe declares no such part, or a value is no part.
    """
    own = declared(recipe)
    for name, value in parts.items():
        if name not in own:
            raise unknown(f"part of {recipe.__name__}", name, own)
        if not isinstance(value, Part):
            raise UserError(
                f"{recipe.__name__}: {name} must be a part, such as part(Class, option=value), not {value!r}"
            )
    return own | parts
