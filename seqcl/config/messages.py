"""The words of what is refused: the option, its file and line, and the nearest valid names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from seqcl.config.settings import Settings, shown
from seqcl.errors import UserError, brief, unknown


def located(error: UserError, place: str | None) -> UserError:
    """The error with the file and line in front, if it has one."""
    return UserError(f"{place}: {error}") if place else error


def at(settings: Settings, key: str) -> str | None:
    """The place of an option, None where it was typed or not given."""
    return settings[key].place if key in settings else None


def unknown_option(key: str, known: Iterable[str], settings: Settings) -> UserError:
    """The error for an option that does not exist."""
    visible = {shown(name) for name in known}
    return located(unknown("option", shown(key), nearest(key, visible)), at(settings, key))


def nearest(key: str, known: set[str]) -> list[str]:
    """The options of the same section; else those of the same last word; else all without a section."""
    section, _, word = key.rpartition(".")
    same = [name for name in known if section and name.startswith(section + ".")]
    return same or [name for name in known if name.endswith("." + word)] or [name for name in known if "." not in name]


def no_section(model: str, key: str, sections: Sequence[str], having: Sequence[str], settings: Settings) -> UserError:
    """The error for a section that this model does not have and others do."""
    section = key.partition(".")[0]
    text = (
        f"option {shown(key)}: {model} has no section {section}; its sections: {', '.join(sorted(sections))}; "
        f"models with it: {', '.join(having[:4])}{' and others' * (len(having) > 4)}"
    )
    return located(UserError(text), at(settings, key))


def of_parser(error: Exception, settings: Settings) -> UserError:
    """A parser's complaint as one line that names the option and, for a file, the line."""
    match = re.search(r'[Pp]arser key "([^"]+)":\s*(.*)', str(error), re.DOTALL)
    if match is None:
        return UserError(brief(error, 240))
    key, reason = match.group(1), " ".join(match.group(2).split())
    return located(UserError(f"option {key}: {one_of(reason) or plainly(brief(reason))}"), at(settings, key))


KINDS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}
"""The names of types in messages."""


def one_of(reason: str) -> str:
    """A parser's complaint about an option of plain types, one or several, in plain words; nothing of others."""
    given = re.search(r"(?:Union subtypes .* Given|^Expected a <.* Got) value: (.*)", reason)
    kinds = [KINDS[kind] for kind in re.findall(r"Expected a <class '(\w+)'>", reason) if kind in KINDS]
    return f"expected {' or '.join(kinds)}, not {brief(given.group(1), 80)}" if given and kinds else ""


def plainly(reason: str) -> str:
    """A parser's complaint about a type in plain words."""
    if choice := re.search(r"Literal\[([^]]*)\].*Got value: (.*)", reason):
        names = [name.strip(" '") for name in choice.group(1).split(",")]
        return str(unknown("value", choice.group(2).strip(" '"), names))
    if "tuple" in reason:
        given = reason.partition("Got value: ")[2]
        example = given if re.fullmatch(r"[\w.]+(, ?[\w.]+)*", given) else "5,10"
        return f"expected values in brackets such as [{example}], not {given}"
    return re.sub(r"<class '(\w+)'>", r"\1", reason)


def of_section(error: UserError, section: str, settings: Settings) -> UserError:
    """The error of a section's own check, with the place of the option that it names."""
    for key, setting in settings.items():
        if (
            setting.place
            and key.startswith(f"{section}." if section else key)
            and re.search(rf"\b{re.escape(key)}\b", str(error))
        ):
            return located(error, setting.place)
    return error


TWOFOLD = re.compile(r"[-+]?(?:0[0-7_]+|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?)")
"""Numbers that YAML 1.1 does not read as they look: in base 60, or in base 8."""


def twofold(text: str) -> str:
    """Say of a number that it could be two; nothing of others."""
    for one in re.split(r"[][,\s]+", text):
        if TWOFOLD.fullmatch(one):
            return (
                f"{one} may mean two numbers, as YAML counts with : in base 60 and with a leading 0 in base 8; "
                "write it in plain digits, or in quotes where it is text"
            )
    return ""


def left_out(places: Mapping[str, str | None]) -> list[str]:
    """A line for each file of which options were left out, as their component was replaced."""
    files = {key: (place or "").rpartition(":")[0] or place or "these options" for key, place in places.items()}
    return [
        f"{file}: left out, because the class they belong to is replaced: "
        + ", ".join(shown(key) for key in places if files[key] == file)
        for file in dict.fromkeys(files.values())
    ]
