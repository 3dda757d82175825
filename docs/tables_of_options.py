"""Tables of the options of recipes, components and runs."""

from __future__ import annotations

from docs import parts
from docs.marked import anchor, table


def recipe_options() -> str:
    """For each recipe, the component of every section and what the recipe sets in it."""
    lines = []
    for name, recipe in parts.recipes().items():
        what, source = parts.paper(recipe)
        lines += [f"### {name}", "", f"{what} {parts.linked(source)}".strip(), ""]
        rows = []
        for section, (component, values) in parts.parts_of(recipe).items():
            link = f"[{component.__name__}](#{anchor(f'{section}: {component.__name__}')})"
            told = ", ".join(f"`--{section}.{key} {parts.shown(value)}`" for key, value in values.items())
            rows.append([f"`--{section}`", link, told])
        lines += [
            table("section | component | what the recipe sets otherwise", rows) if rows else "It has no options.",
            "",
        ]
    return "\n".join(lines).rstrip()


def component_options() -> str:
    """The options of every component, by section."""
    lines = []
    for section, found in parts.components().items():
        for name, component in found.items():
            lines += described(f"{section}: {name}", component, section)
    return "\n".join(lines).rstrip()


def shared_options() -> str:
    """The options that every run has."""
    lines = []
    for section, component in parts.shared().items():
        lines += described(section or "run", component, section)
    return "\n".join(lines).rstrip()


def described(title: str, component: parts.Component, section: str) -> list[str]:
    """A component under its title: what it is, and its options."""
    return [f"### {title}", "", parts.first_sentence(component), "", options_of(component, section), ""]


def options_of(component: parts.Component, section: str) -> str:
    """The options of one component with default and help."""
    rows = []
    for option in parts.options(component):
        key = f"--{section}.{option.name}" if section else f"--{option.name}"
        chosen = f" One of {', '.join(f'`{value}`' for value in option.choices)}." if option.choices else ""
        default = f"`{option.default}`" if option.default else ""
        rows.append([f"`{key}`", default, option.meaning + chosen])
    return table("option | default | meaning", rows) if rows else "It has no options."
