"""Write the generated tables of README.md and of the pages: python docs/generate.py

A page names a table between two lines, `<!-- generated: NAME -->` and `<!-- end -->`; what lies between them is written anew. Tables of
models, parts and options come from the code, tables of figures from benchmarks/measured/ and from the heads of configs/.
With --check nothing is written: stale pages are named, and the exit code is 1 if there is one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from docs import figures, hardships, layouts, parts  # noqa: E402
from seqcl.models import Baseline, Recommender  # noqa: E402
from seqcl.models.pretraining import ContrastFirst  # noqa: E402
from seqcl.objectives import Distillation  # noqa: E402

MARKED = re.compile(r"(<!-- generated: (?P<name>[^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
DATA = {"Beauty": "beauty", "Sports_and_Outdoors": "sports"}
"""The benchmarks whose tables have a heading of their own."""

SHORT_LIST = ("sasrec", "cl4rec", "taprec")
"""The configurations that README shows of each data set."""


def table(head: str, rows: Iterable[Iterable[str]], aligned: str = "") -> str:
    """A Markdown table; `head` has its columns between bars, `aligned` an r for each column of figures."""
    names = head.split(" | ")
    rule = ["---:" if aligned[place : place + 1] == "r" else "---" for place in range(len(names))]
    lines = [names, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def readme_results() -> str:
    """Six rows: for each data set the plain model, the contrastive one, and the strongest."""
    rows = []
    for data, prefix in DATA.items():
        of_data = {row.name: row for row in figures.rows(prefix)}
        for name in SHORT_LIST:
            row = of_data[f"{prefix}-{name}"]
            rows.append([data, row.label, f"`configs/{row.name}.yaml`", *quality_of(row)[:2], *difference_of(row)])
    return table(
        "data | model | configuration | NDCG@10 | HR@10 | over SASRec [95 %] | p | p, Holm | seeds ahead",
        rows,
        "   rrrrrr",
    )


def quality_of(row: figures.Row) -> list[str]:
    """NDCG@10 and HR@10 on test, NDCG@10 on validation."""
    recall, ndcg = (figures.spread(row.figures[metric]) for metric in figures.SHOWN)
    return [ndcg, recall, figures.digits(row.figures["valid ndcg@10"])]


def difference_of(row: figures.Row) -> list[str]:
    """The difference to the base with its interval, p, p corrected, and seeds ahead."""
    if row.base is None:
        return ["", "", "", ""]
    difference, p, ahead = figures.verdict(row.found)
    return [difference, p, figures.chance(row.holm), f"{ahead} of {len(row.runs)}"]


def results(benchmark: str) -> str:
    """All kept rows of a benchmark, and below the table what each was made on."""
    dates = {head.file: head.date for head in figures.heads()}
    origins: dict[str, str] = {}
    rows = []
    for row in figures.rows(benchmark):
        marks = [origins.setdefault(figures.origin(run), str(len(origins) + 1)) for run in row.runs]
        made = marks[0] if len(set(marks)) == 1 else ", ".join(marks)
        minutes = f"{row.figures['minutes']:.0f}"
        ndcg, recall, valid = quality_of(row)
        how = [f"`{figures.command(row.name, benchmark)}`", minutes, dates.get(row.name, ""), made]
        rows.append([row.label, ndcg, recall, *difference_of(row), valid, *how])
    head = (
        "model | NDCG@10 | HR@10 | difference [95 %] | p | p, Holm | seeds ahead | NDCG@10, valid | "
        "command | minutes | date | made on"
    )
    compared = sum(row.base is not None for row in figures.rows(benchmark))
    notes = [
        f"Holm's correction is over the {compared} differences of this table. Minutes are of one run. Made on, with one number for each "
        "seed where they differ:",
        "",
        *(f"{mark}. {origin}" for origin, mark in origins.items()),
    ]
    return table(head, rows, " rrrrrrr rrr") + "\n\n" + "\n".join(notes)


def other_results(data: str) -> str:
    """The configurations of a data set whose ranks are not kept: figures of their heads, and the models that are counted."""
    rows = []
    kept = {name for benchmark in figures.benchmarks() for name in figures.kept_of(benchmark)}
    for head in figures.heads():
        if head.data == data and head.file not in kept and not head.file.startswith("papers/"):
            command = f"python run.py --config configs/{head.file}.yaml {head.how.removeprefix('with ')}"
            rows.append(
                [head.model, f"`{command.strip()}`", head.ndcg, head.recall, head.valid, str(head.seeds), head.date]
            )
    for model, (counted_on, recall, ndcg) in figures.COUNTED.items():
        if counted_on == data:
            command = f"`python run.py --model {model} --dataset {data}`"
            rows.append([model, command, ndcg, recall, "", "", figures.COUNTED_ON])
    return table("model | command | NDCG@10 | HR@10 | NDCG@10, valid | seeds | date", rows, "  rrrr")


def all_benchmarks() -> str:
    """Every file of configs/benchmarks/ with its command and how much of it is kept, and the tables that have no heading of their own."""
    overview, tables = [], []
    for benchmark, grid in figures.benchmarks().items():
        data = ", ".join(one.name for one in grid.data)
        kept = sum(len(runs) for runs in figures.kept_of(benchmark).values())
        command = f"`seqcl benchmark configs/benchmarks/{benchmark}.yaml --jobs 2`"
        overview.append([data, str(len(grid.models)), str(kept), command])
        if kept and len(grid.data) == 1 and benchmark not in DATA.values():
            tables += [f"### {data}", results(benchmark)]
    return "\n\n".join([table("data | models | runs kept | command", overview, " rr"), *tables])


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
    where = "" if first.data == "Beauty" else f" on {first.data}, seen kept"
    seeds = f" ({first.seeds})" if issubclass(parts.recipes()[name], Recommender) else ""
    return f"{first.ndcg.partition(' ')[0]}{seeds}{where}"


def readme_models() -> str:
    """One row a model that is trained and measured; the names of the others."""
    rows, counted, others = [], [], []
    for name, recipe in parts.recipes().items():
        if best(name) == UNMEASURED:
            others.append(name)
        elif issubclass(recipe, Baseline):
            counted.append(f"{name} {best(name)}")
        else:
            _, source = parts.paper(recipe)
            alias = "".join(f" (alias {alias})" for alias in parts.aliases(recipe))
            rows.append([name + alias, parts.linked(source), best(name)])
    more = [f"Counted, not trained: {', '.join(counted)}."]
    more += [f"Not yet measured: {len(others)} more, which [the models page](docs/models.md) has."] if others else []
    return "\n\n".join([table("name | paper | NDCG@10, Beauty (seeds)", rows, "  r"), "\n".join(more)])


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


def anchor(heading: str) -> str:
    """The anchor that the site gives a heading."""
    return re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-"))


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
                rows.append([name, f"`configs/{head.file}.yaml`", figure, str(head.seeds), head.date])
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
        section = {"encoder": "encoder", "view": "views", "objective": "objective"}.get(kind, "")
        found = []
        for name, component in parts.tables()[kind].items():
            what, source = parts.paper(component)
            at = component.__name__
            linked = at in known.get(section, {}) and f"[{name}](options.md#{anchor(f'{section}: {at}')})"
            found.append([linked or f"`{name}`", what, parts.linked(source)])
        return table("name | what it does | source", found)

    return rows


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


TABLES: dict[str, Callable[[], str]] = {
    "README results": readme_results,
    "README models": readme_models,
    "models": models,
    "configurations": configurations,
    "differences": differences,
    "encoders": listed("encoder"),
    "views": listed("view"),
    "objectives": listed("objective"),
    "losses": listed("loss"),
    "metrics": listed("metric"),
    "results on Beauty": lambda: results("beauty"),
    "results on Sports": lambda: results("sports"),
    "benchmarks": all_benchmarks,
    "when contrast helps": lambda: table(hardships.HEAD, hardships.rows(), hardships.ALIGNED),
    "other results on Beauty": lambda: other_results("Beauty"),
    "results on ml-100k": lambda: other_results("ml-100k"),
    "shared options": shared_options,
    "recipe options": recipe_options,
    "component options": component_options,
    "layouts": lambda: table("file | first line (→ is a tab) | what seqcl says", layouts.rows()),
}
"""The names that may stand behind `generated:`."""


def fresh(text: str) -> str:
    """A page with its tables written anew."""
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found['name']]()}\n\n{found[3]}", text)


def pages(root: Path = ROOT) -> list[Path]:
    """The files that may hold generated tables."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def stale(root: Path = ROOT) -> dict[Path, str]:
    """The pages that differ from what is generated, with what they should hold."""
    texts = {page: page.read_text(encoding="utf-8") for page in pages(root)}
    return {page: fresh(text) for page, text in texts.items() if fresh(text) != text}


def main() -> int:
    found = stale()
    checking = "--check" in sys.argv[1:]
    for page, text in found.items():
        print(f"{page.relative_to(ROOT)} {'is stale' if checking else 'is written'}")
        if not checking:
            page.write_text(text, encoding="utf-8", newline="\n")
    return int(checking and bool(found))


if __name__ == "__main__":
    sys.exit(main())
