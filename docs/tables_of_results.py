"""Tables of figures: README's, those of each benchmark, and those of the heads of configurations."""

from __future__ import annotations

from docs import figures
from docs.marked import table

DATA = {"Beauty": "beauty", "Sports_and_Outdoors": "sports"}
"""The data sets of README, by the name of their benchmark."""

HEADED = {*DATA.values(), "ml-100k", "lastfm"}
"""The benchmarks whose tables have a heading of their own."""

SHORT_LIST = ("sasrec", "cl4rec", "taprec")
"""The configurations that README shows of each data set."""


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


def results(benchmark: str, *, few: bool = False) -> str:
    """All kept rows of a benchmark, and below the table what each was made on; those with few seeds apart from the others."""
    dates = {head.file: head.date for head in figures.heads()}
    origins: dict[str, str] = {}
    rows, chosen = [], [row for row in figures.rows(benchmark) if row.few == few]
    dated = any(row.name in dates for row in chosen)
    for row in chosen:
        marks = [origins.setdefault(figures.origin(run), str(len(origins) + 1)) for run in row.runs]
        made = marks[0] if len(set(marks)) == 1 else ", ".join(marks)
        minutes = f"{row.figures['minutes']:.0f}"
        ndcg, recall, valid = quality_of(row)
        how = [
            f"`{figures.command(row.name, benchmark)}`",
            minutes,
            *([dates.get(row.name, "")] if dated else []),
            made,
        ]
        difference, p, corrected, ahead = difference_of(row)
        verdict = [difference, p, str(len(row.runs))] if few else [difference, p, corrected, ahead]
        rows.append([row.label, ndcg, recall, *verdict, valid, *how])
    middle = "seeds" if few else "p, Holm | seeds ahead"
    head = f"model | NDCG@10 | HR@10 | difference [95 %] | p | {middle} | NDCG@10, valid | command | minutes | {'date | ' if dated else ''}made on"
    compared = sum(row.base is not None for row in chosen)
    tested = (
        "Intervals and p of one seed are over users alone, and p is not corrected. "
        if few
        else f"Holm's correction is over the {compared} differences of this table. "
        if compared
        else ""
    )
    notes = [
        f"{tested}Minutes are of one run. Made on, with one number for each seed where they differ:",
        "",
        *(f"{mark}. {origin}" for origin, mark in origins.items()),
    ]
    return table(head, rows, " rrrrrr rrr" if few else " rrrrrrr rrr") + "\n\n" + "\n".join(notes)


def other_results(data: str) -> str:
    """The configurations of a data set whose ranks are not kept: figures of their heads, and the models that are counted."""
    rows = []
    kept = {name for benchmark in figures.benchmarks() for name in figures.kept_of(benchmark)}
    for head in figures.heads():
        if head.data == data and head.file not in kept and not head.file.startswith("papers/"):
            command = f"python run.py --config configs/{head.file}.yaml {head.how.removeprefix('with ')}"
            rows.append(
                [
                    head.model + head.networks,
                    f"`{command.strip()}`",
                    head.ndcg,
                    head.recall,
                    head.valid,
                    str(head.seeds),
                    head.date,
                ]
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
        if kept and len(grid.data) == 1 and benchmark not in HEADED:
            tables += [f"### {data}", results(benchmark)]
    return "\n\n".join([table("data | models | runs kept | command", overview, " rr"), *tables])
