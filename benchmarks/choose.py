"""Choose the options of a model that is counted, not trained, by NDCG@10 on validation; test is not ranked.

    python benchmarks/choose.py --model SLIST --dataset Beauty --weights.ridge 50,100,200 --weights.likeness 0,0.2

Values with commas between them are tried, each with each. A line a choice; the last line is one JSON object with the best one.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from seqcl import config  # noqa: E402
from seqcl.config.settings import of_words  # noqa: E402
from seqcl.errors import UserError  # noqa: E402
from seqcl.experiment.ranking import rank  # noqa: E402


def choices(words: list[str]) -> list[list[str]]:
    """The words of every choice."""
    tried = {f"--{name.removesuffix('.name')}": str(one.value).split(",") for name, one in of_words(words).items()}
    return [
        [word for pair in zip(tried, values, strict=True) for word in pair]
        for values in itertools.product(*tried.values())
    ]


def main() -> None:
    if not sys.argv[1:] or {"-h", "--help"} & set(sys.argv):
        raise SystemExit(__doc__)
    tried = choices(sys.argv[1:])
    first = config.resolve(tried[0])
    if first.recipe.trained:
        raise UserError(
            f"{first.recipe.name} is trained, not counted: compare configurations with benchmarks/quality.py"
        )
    split = first.data.split_windows(first.data.sequences(first.options.dataset))
    best: tuple[float, list[str]] = (-1.0, [])
    for words in tried:
        experiment, began = config.resolve(words), time.perf_counter()
        with torch.no_grad():
            model = experiment.build(split.train)
            found = rank(model, split, "valid", experiment.eval, torch.device("cpu"), lists=False).metrics["ndcg@10"]
        best = max(best, (found, words))
        print(f"{found:.5f}  {' '.join(words)}  ({time.perf_counter() - began:.0f} s)", flush=True)
    print(json.dumps({"benchmark": "choose", "valid ndcg@10": best[0], "chosen": " ".join(best[1])}))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
