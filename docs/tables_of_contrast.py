"""Tables of when contrast helps: every contrastive model by data set, and CL4Rec on a log made harder."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from docs import figures, parts  # noqa: E402
from docs.figures import Kept  # noqa: E402
from docs.marked import table  # noqa: E402
from seqcl.evaluation import Comparison, compare, holm  # noqa: E402

BENCHMARK = "contrast"
WHOLE = "whole"
TOLD = {
    "users-10": "10 % of the users",
    "users-30": "30 % of the users",
    WHOLE: "the whole log",
    "noise-10": "10 % of its items replaced",
    "noise-30": "30 % of its items replaced",
}
"""The training data in words, by the name in the benchmark; the whole log is measured by the benchmark of Beauty."""
MODELS = ("beauty-sasrec", "beauty-cl4rec")
SURE = 0.05
"""Holm's p below which a difference is told from chance."""


def contrast_by_data() -> str:
    """One row for each data set: its contrastive models of enough seeds, and which of them are ahead of themselves without contrast, or behind."""
    rows = []
    for benchmark in (name for name in figures.benchmarks() if name != BENCHMARK):
        tested = [row for row in figures.rows(benchmark) if contrasts(row) and not row.few]
        if not tested:
            continue
        sure = [row for row in tested if row.holm < SURE]
        ahead, behind = (
            [
                f"{row.label} {figures.digits(row.found['difference'], signed=True)}"
                for row in sure
                if better(row) is way
            ]
            for way in (True, False)
        )
        middle = figures.digits(float(np.median([row.found["difference"] for row in tested])), signed=True)
        data = tested[0].figures["data"]
        rows.append([data, str(len(tested)), ", ".join(ahead) or "none", ", ".join(behind) or "none", middle])
    head = "data | rows with contrast | ahead, p of Holm < .05 | behind, p of Holm < .05 | median difference"
    return table(head, rows, " r  r")


def contrasts(row: figures.Row) -> bool:
    """True for a row with its contrastive term."""
    recipe = parts.recipes()[row.runs[0].metrics["model"]]
    return parts.contrasts(recipe) and row.base is not None and not row.name.endswith(figures.WITHOUT)


def better(row: figures.Row) -> bool:
    """True for a row ahead of its base."""
    return bool(row.found["difference"] > 0)


def pairs() -> dict[str, tuple[list[Kept], list[Kept]]]:
    """Kept runs without and with contrast by what they trained on, as many seeds of one as of the other."""
    kept, beauty = figures.kept_of(BENCHMARK), figures.kept_of("beauty")
    found = {}
    for name in TOLD:
        runs = [
            (beauty if name == WHOLE else kept).get(f"{'' if name == WHOLE else name + '-'}{one}", []) for one in MODELS
        ]
        seeds = min(len(one) for one in runs)
        if seeds:
            found[name] = (runs[0][:seeds], runs[1][:seeds])
    return found


def comparisons() -> dict[str, Comparison]:
    """Compare CL4Rec with SASRec on each training log.

    Raises:
        AssertionError: two runs that are compared differ in their protocol.
    """
    found = {}
    for name, (plain, ours) in pairs().items():
        assert all(one.protocol() == other.protocol() for one, other in zip(ours, plain, strict=True)), name
        found[name] = compare([run.gains() for run in ours], [run.gains() for run in plain])
    return found


def when_contrast_helps() -> str:
    """One row for each log that was trained on."""
    runs, tests = pairs(), comparisons()
    corrected = dict(zip(tests, holm([test.p_value for test in tests.values()]), strict=True))
    rows = []
    for name, test in tests.items():
        plain, ours = (figures.row_of(one) for one in runs[name])
        about = {"low": test.low, "high": test.high, "p": test.p_value, "seeds better": test.seeds_better}
        difference, p, ahead = figures.verdict({"difference": test.difference, **about})
        part = f"{test.difference / plain['ndcg@10']['mean']:+.1%}".replace("-", "−").replace("%", " %")
        cells = [figures.spread(plain["ndcg@10"]), figures.spread(ours["ndcg@10"]), difference, part, p]
        rows.append([TOLD[name], *cells, figures.chance(corrected[name]), f"{ahead} of {len(runs[name][1])}"])
    head = "trained on | SASRec | CL4Rec | difference [95 %] | of SASRec's | p | p, Holm | seeds ahead"
    made = dict.fromkeys(figures.origin(run) for name in runs if name != WHOLE for run in runs[name][1])
    return table(head, rows, " rrrrrrr") + f"\n\nMade on {'; '.join(made)}."
