"""Tables of models and their parts, with the figure of each model."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from docs import figures, parts
from docs.marked import anchor, table
from seqcl.models import Baseline, Recommender
from seqcl.models.pretraining import ContrastFirst
from seqcl.objectives import Distillation

UNASKED = (ContrastFirst, Distillation)
"""Parts that do nothing until they are asked to."""

UNMEASURED = "not yet measured"
"""In the place of the figure of a model."""


def best(name: str) -> str:
    """The figure of a model for README: that of its configuration for Beauty, else of another one, or as it was counted."""
    if name in figures.COUNTED:
        return figures.COUNTED[name][2]
    own = [head for head in figures.heads() if head.model == name and not head.file.startswith("papers/")]
    if not own:
        return UNMEASURED
    first = min(own, key=lambda head: (head.data != "Beauty", len(head.file)))
    where = "" if first.data == "Beauty" else f" on {first.data} with seen kept"
    seeds = f" ({first.seeds})" if issubclass(parts.recipes()[name], Recommender) else ""
    return f"{first.ndcg.partition(' ')[0]}{seeds}{where}"


def readme_models() -> str:
    """The models with the figure of each, by whether they have a contrastive term, have none, or are counted."""
    kinds: dict[str, list[str]] = {
        "With a contrastive term": [],
        "Other trained models": [],
        "Counted, not trained": [],
        "Not yet measured": [],
    }
    for name, recipe in parts.recipes().items():
        aliases = "".join(f" (alias {alias})" for alias in parts.aliases(recipe))
        if best(name) == UNMEASURED:
            kinds["Not yet measured"].append(name + aliases)
            continue
        trained = "With a contrastive term" if parts.contrasts(recipe) else "Other trained models"
        kind = "Counted, not trained" if issubclass(recipe, Baseline) else trained
        kinds[kind].append(f"{name}{aliases} {best(name).replace(f' ({figures.SEEDS})', '')}")
    told = [f"**{kind}**: {', '.join(models)}." for kind, models in kinds.items() if models]
    return "\n\n".join("\n".join(textwrap.wrap(text, 138, break_on_hyphens=False)) for text in told)


def models() -> str:
    """One row a model: what it is and what it is made of."""
    rows = []
    for name, recipe in parts.recipes().items():
        what, source = parts.paper(recipe)
        found = parts.parts_of(recipe)
        own = [component_of(found, section) for section in ("encoder", "views", "objective")]
        usual = {"encoder", "views", "objective", "next_item"}
        usual |= {
            section for section, (component, own_values) in found.items() if component in UNASKED and not own_values
        }
        others = ", ".join(f"`{section}`" for section in found if section not in usual)
        also = "".join(f", alias {alias}" for alias in parts.aliases(recipe))
        link = f"[{name}](options.md#{anchor(name)}){also}"
        rows.append([link, best(name), what, parts.linked(source), *own, others])
    head = "name | NDCG@10, Beauty (seeds) | what it learns | paper | encoder | views | objective | further parts"
    return table(head, rows)


def component_of(found: dict, section: str) -> str:
    """The component of a section, linked to its options."""
    if section not in found:
        return ""
    component, values = found[section]
    name = component.__name__
    told = ", ".join(f"{key} {parts.shown(value)}" for key, value in values.items())
    return f"[{name}](options.md#{anchor(f'{section}: {name}')})" + (f" ({told})" if told else "")


def configurations() -> str:
    """Every configuration by data set and model with its figure; that of a model's best one is in bold."""
    blocks = []
    own = [head for head in figures.heads() if not head.file.startswith("papers/")]
    for data in dict.fromkeys(head.data for head in own):
        rows = []
        for name in parts.recipes():
            of_model = [head for head in own if (head.model, head.data) == (name, data)]
            top = max((head.ndcg for head in of_model), default="")
            for head in of_model:
                figure = f"**{head.ndcg}**" if head.ndcg == top else head.ndcg
                rows.append([name + head.networks, f"`configs/{head.file}.yaml`", figure, str(head.seeds), head.date])
        blocks += [f"### {data}", table("model | configuration | NDCG@10 | seeds | date", rows, "  rr")]
    return "\n\n".join(blocks)


def differences() -> str:
    """List the differences of each recipe from its paper."""
    told = {name: parts.differences(recipe) for name, recipe in parts.recipes().items()}
    return "\n".join(f"- **{name}**. {text}" for name, text in told.items() if text)


def listed(kind: str) -> Callable[[], str]:
    """The table of one kind of parts: name, what it is, source."""

    def rows() -> str:
        known = parts.components()
        found = []
        for name, component in parts.tables()[kind].items():
            what, source = parts.paper(component)
            at = component.__name__
            places = [section for section, ones in known.items() if ones.get(at) is component]
            linked = f"[{name}](options.md#{anchor(f'{places[0]}: {at}')})" if places else f"`{name}`"
            found.append([linked, what, parts.linked(source)])
        return table("name | what it does | source", found)

    return rows
