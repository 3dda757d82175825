"""Lists for all users beside the full ranking of the test, memory by the number of users; the last line is one JSON object.

    python benchmarks/lists.py [--run RUN] [--rounds 5] [--k 50] [--threads 2] [--clock cpu] [--users 100000,400000] [--smoke]

The first part takes turns within one process, on one run: `Run.evaluate("test")`, which ranks the test and takes all metrics,
and `write_lists`, which writes the k best items of every user as Parquet. RUN is a finished run; without one, SASRec of
configs/beauty-sasrec.yaml is trained for an epoch (times do not depend on the weights). On a busy machine `--threads 1
--clock cpu` counts processor time and leaves out the wait for it. The second part starts a process
for each number of users, who have histories of 10 items, a packed log on disk, and asks an exported run for lists of all
of them: peak memory, and how much of it came while the lists were written. `--smoke` takes a small log for both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
LENGTH = 10
"""Items of each history of the second part."""


def trained(folder: Path, smoke: bool) -> Any:
    """A run to ask: of Beauty, or of a small chain."""
    import seqcl

    if smoke:
        small = {"encoder": {"dim": 8}, "train": {"epochs": 1, "batch_size": 128}}
        return seqcl.train("markov", model="SASRec", runs=str(folder), progress=False, **small)
    from seqcl import config, experiment

    words = ["--config", str(ROOT / "configs" / "beauty-sasrec.yaml"), "--train.epochs", "1", "--runs", str(folder)]
    return experiment.execute(config.resolve(words), progress=False)


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def seconds(work: Callable[[], object], clock: str = "wall") -> float:
    started = CLOCKS[clock]()
    work()
    return CLOCKS[clock]() - started


def duel(run: Any, folder: Path, rounds: int, k: int, clock: str) -> dict[str, Any]:
    """Median seconds of the evaluation and of the lists, in turns, and the median of the ratios within a round."""
    from seqcl.experiment import answers, histories
    from seqcl.experiment.lists import write_lists

    def write(number: int) -> None:
        out = folder / f"{number}.parquet"
        write_lists(answers.of_run(run), histories.of_log(run.sequences), out, k=k, progress=False)

    run.evaluate("test")
    write(0)
    pairs = [
        (seconds(lambda: run.evaluate("test"), clock), seconds(lambda n=n: write(n), clock))
        for n in range(1, rounds + 1)
    ]
    ratios = [lists / ranking for ranking, lists in pairs]
    return {
        "users": run.sequences.num_users,
        "items": run.sequences.num_items,
        "evaluate_s": round(statistics.median(ranking for ranking, _ in pairs), 3),
        "lists_s": round(statistics.median(lists for _, lists in pairs), 3),
        "lists_over_evaluate": round(statistics.median(ratios), 3),
        "worst_round": round(max(ratios), 3),
        "file_bytes": (folder / "1.parquet").stat().st_size,
    }


def peak_bytes() -> int:
    """Largest resident size of this process; what `getrusage` says counts the process that started it too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def ask(bundle: Path, log: Path, out: Path, k: int, threads: int) -> dict[str, Any]:
    """In this process: seconds and memory of the lists for all users of a packed log."""
    import torch

    from seqcl.experiment import answers, histories
    from seqcl.experiment.lists import write_lists
    from seqcl.retrieval.bundle import Bundle

    torch.set_num_threads(threads)
    asked = answers.of_bundle(Bundle(bundle))
    whose = histories.of_file(log, asked.item_ids)
    before = peak_bytes()
    spent = seconds(lambda: write_lists(asked, whose, out, k=k, progress=False))
    peak = peak_bytes()
    return {"users": len(whose), "seconds": round(spent, 1), "peak_bytes": peak, "growth_bytes": peak - before}


def pack_histories(item_ids: Any, users: int, place: Path) -> None:
    """Write a packed log of users who have items drawn at random."""
    import numpy as np

    from seqcl.data import Interactions, pack

    items = np.random.default_rng(0).integers(0, len(item_ids), users * LENGTH, dtype=np.int32)
    owners = np.repeat(np.arange(users, dtype=np.int32), LENGTH)
    log = Interactions(users=owners, items=items, user_ids=np.arange(users), item_ids=np.asarray(item_ids))
    pack(log).save(place)


def by_size(run: Any, folder: Path, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Ask an exported run for more and more users, in a process each."""
    bundle, rows = run.export(folder / "bundle", index="flat"), []
    for users in map(int, chosen.users.split(",")):
        place = folder / f"log-{users}"
        pack_histories(run.sequences.item_ids, users, place)
        words = [str(bundle), str(place), str(folder / f"lists-{users}.parquet"), str(chosen.k), str(chosen.threads)]
        done = subprocess.run(
            [sys.executable, __file__, "--ask", *words], check=True, stdout=subprocess.PIPE, encoding="utf-8"
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished run; one of Beauty is trained if not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of this process, in the first part")
    parser.add_argument("--users", default="100000,400000", help="numbers of users of the second part")
    parser.add_argument("--smoke", action="store_true", help="a small log, two rounds: shows that all works")
    parser.add_argument("--ask", nargs=5, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.ask:
        bundle, log, out, k, threads = chosen.ask
        print(json.dumps(ask(Path(bundle), Path(log), Path(out), int(k), int(threads))))
        return
    import torch

    import seqcl

    if chosen.smoke:
        chosen.rounds, chosen.users = 2, "500,2000"
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = seqcl.load(chosen.run) if chosen.run else trained(folder / "runs", chosen.smoke)
        report: dict[str, Any] = {
            "benchmark": "lists",
            "run": run.folder.name,
            "k": chosen.k,
            "rounds": chosen.rounds,
            "threads": chosen.threads,
            "clock": chosen.clock,
            **duel(run, folder, chosen.rounds, chosen.k, chosen.clock),
        }
        print(report, flush=True)
        report["by_users"] = by_size(run, folder, chosen)
        report |= {"torch": torch.__version__, "cores": os.cpu_count(), "machine": platform.machine()}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
