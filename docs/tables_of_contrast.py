"""The table of when contrast helps: SASRec and CL4Rec on a log made harder, from the ranks in benchmarks/measured/contrast/."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from docs import figures  # noqa: E402
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
