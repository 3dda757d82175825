"""Training on one process and on two, of one thread each: items a second, and the bytes that a step sends.

    python benchmarks/processes.py [--config configs/beauty-cl4rec.yaml] [--steps 100] [--rounds 3] [--smoke] [--recipes] [--train.batch_size 512]

The whole batch is the same for both, so that two processes have half of the rows each. In each round two single processes that
know nothing of each other run side by side as well: what two cores of this machine can do at the most. They take turns; a figure is the median
of rounds, of the second of two short epochs of the loop that users run. The bytes are those of the tensors that a process hands
over in a step: rows of states and the gradient. With --recipes every trained recipe learns a Markov chain on two processes, and
its test NDCG@10 is shown beside the best that is possible. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

MUST = 1.6
"""Items a second of two processes, over those of one."""


class Short:
    """The first batches of each epoch of a loader."""

    def __init__(self, loader: Any, steps: int) -> None:
        self.loader, self.steps = loader, min(steps, len(loader))

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        for _, batch in zip(range(start, self.steps), self.loader.epoch(number, start), strict=False):
            yield batch


def measure(configuration: str, dataset: str | None, steps: int, options: list[str]) -> dict[str, Any]:
    """Train two short epochs in this process, alone or with the others; give the pace of the second."""
    import torch

    from seqcl import config, processes
    from seqcl.experiment import training_batches

    processes.start()
    words = ["--config", configuration, *(["--dataset", dataset] if dataset else []), *options]
    experiment = config.resolve(words)
    split = experiment.data.split_windows(
        processes.first_before_others(lambda: experiment.data.sequences(experiment.options.dataset))
    )
    torch.manual_seed(0)
    model = experiment.build(split.train)
    trainer = replace(experiment.train, epochs=2, patience=0)
    loader = training_batches(split, trainer, seed=0, device=torch.device("cpu"), times=model.objective.times_needed)
    before = processes.Counts.payload
    result = trainer.fit(model, Short(loader, steps), progress=False)
    found = {"items_per_second": result.history[-1]["items_per_second"], "batch": trainer.batch_size}
    found |= {"bytes_per_step": (processes.Counts.payload - before) / result.steps, "loss": result.history[-1]["loss"]}
    return found


def chain_of_recipes(names: list[str]) -> dict[str, Any]:
    """Train recipes on a Markov chain, on the processes that there are: NDCG@10 of each, and the best that is possible."""
    import pandas as pd

    import seqcl
    from seqcl import processes
    from seqcl.data import leave_one_out, markov, pack
    from seqcl.models import MODELS, Recommender

    processes.start()
    chain = markov(users=600, items=30, length=12, branching=2, seed=1)
    kinds = pd.DataFrame({"kind": [f"k{item % 7}" for item in range(500)]}, index=range(500))
    log = replace(chain.interactions, item_features=kinds)
    sequences = pack(log)
    best = chain.ceiling(leave_one_out(sequences).test, sequences.item_ids, ks=(10,))["ndcg@10"]
    train = {"epochs": 8, "lr": 0.005, "batch_size": 64}
    options: dict[str, Any] = {"encoder": {"dim": 32}, "data": {"windows": "last"}, "eval": {"exclude_seen": False}}
    longer = {"NARM": {"train": train | {"epochs": 12}}}
    longer["BERT4Rec"] = {"encoder": {"dim": 32, "dropout": 0.1, "layers": 1}, "train": train | {"epochs": 20}}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        runs = processes.of_first(folder)
        for name in names or sorted({kind.__name__ for kind in MODELS.values() if issubclass(kind, Recommender)}):
            values = options | {"train": train} | longer.get(name, {})
            run = seqcl.train(log, model=name, runs=runs, progress=False, **values)
            found[name] = run.metrics["test"]["ndcg@10"] / best
            if processes.is_first():
                print(f"{name:<12}{found[name]:.3f} of the best", file=sys.stderr, flush=True)
    return found


def child(processes: int, *words: str) -> dict[str, Any]:
    """Run this file on some processes of one thread each; give what the first one found."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "found.json"
        command = [sys.executable, *start, __file__, "--child", str(place), *words]
        done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
        if done.returncode:
            raise SystemExit(f"{processes} processes ended with {done.returncode}")
        return json.loads(place.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(ROOT / "configs" / "beauty-cl4rec.yaml"))
    parser.add_argument("--dataset")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recipes", nargs="*", metavar="NAME")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    chosen, options = parser.parse_known_args()
    if chosen.smoke:
        chosen.config, chosen.steps, chosen.rounds = str(ROOT / "configs" / "ml-100k-cl4rec.yaml"), 3, 1
        chosen.dataset = "markov"
    if chosen.child:
        recipes = chosen.recipes is not None
        found = (
            chain_of_recipes(chosen.recipes)
            if recipes
            else measure(chosen.config, chosen.dataset, chosen.steps, options)
        )
        from seqcl import processes

        if processes.is_first():
            chosen.child.write_text(json.dumps(found))
        processes.wait()
        processes.end()
        return
    words = ["--config", chosen.config, "--steps", str(chosen.steps)]
    words += [*(["--dataset", chosen.dataset] if chosen.dataset else []), *options]
    rounds: dict[str, list[float]] = {"one": [], "two": [], "apart": []}
    for _ in range(chosen.rounds):
        alone, together = child(1, *words), child(2, *words)
        with ThreadPoolExecutor(2) as pool:
            beside = list(pool.map(lambda _: child(1, *words), range(2)))
        for name, found in (("one", [alone]), ("two", [together]), ("apart", beside)):
            rounds[name].append(sum(each["items_per_second"] for each in found))
            print(f"{name}: {rounds[name][-1]:,.0f} items/s", file=sys.stderr, flush=True)
    one, two, apart = (statistics.median(each) for each in rounds.values())
    found = {
        "config": " ".join([Path(chosen.config).stem, *options]),
        "batch": alone["batch"],
        "items_per_second_1": round(one),
        "items_per_second_2": round(two),
        "items_per_second_apart": round(apart),
        "ratio": round(two / one, 2),
        "must": MUST,
        "at_most": round(apart / one, 2),
        "bytes_per_step": round(together["bytes_per_step"]),
        "date": str(date.today()),
    }
    if chosen.recipes is not None:
        reached = child(2, "--recipes", *chosen.recipes)
        found |= {"recipes_over_best": reached, "lowest": min(reached.values())}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
