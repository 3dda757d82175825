"""Logs beyond memory: pack Parquet in passes, and what the packed log costs from there to the first step of training.

    python benchmarks/pack.py                      # 10 and 100 million interactions; needs 12 GB of disk
    python benchmarks/pack.py --rows 10000000      # these alone
    python benchmarks/pack.py --smoke              # a small log, no claims

A log has 2 million users, 1 million items of a Zipf distribution, eight Parquet parts, and no order. It is packed with a
5-core on two threads, and whole; then training starts on the whole one, up to its first step, with one thread; then each
piece is made over the mapped log: splits, windows, counts, correlations of items, the index of same targets. Everything runs
in a process of its own. Memory is the peak of resident pages; `heap` is the peak without pages of mapped files. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PARTS = 8
MUST = {"pack_peak_gib": 4.0, "pack_seconds": 600.0}
MOST_BYTES = 16 << 30
"""Memory that a measurement may take; one that needs more fails."""

MOST_SECONDS = 300.0
"""Seconds of the processor after which a piece is stopped, such as the correlations of a million items."""

PIECES = (
    "leave_one_out last",
    "leave_one_out sliding",
    "leave_one_out prefix",
    "temporal last",
    "item_counts",
    "target_counts",
    "correlations",
    "same_target",
)


def make(folder: Path, rows: int, users: int, items: int) -> None:
    """Write a log of Zipf items and users with long tails, in no order, as eight Parquet parts."""
    import pyarrow as pa
    from pyarrow import parquet

    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    schema = pa.schema([("user_id", pa.int64()), ("item_id", pa.int64()), ("timestamp", pa.int64())])
    for part in range(PARTS):
        end, begin = rows * (part + 1) // PARTS, rows * part // PARTS
        with parquet.ParquetWriter(folder / f"part-{part}.parquet", schema) as file:
            for start in range(begin, end, 1 << 20):
                size = min(1 << 20, end - start)
                owner = (random.random(size) ** 1.5 * users).astype(np.int64)
                rank = (items ** random.random(size)).astype(np.int64)  # the chance of a rank is about 1 / rank
                times = 1_500_000_000 + random.integers(0, 3 * 31_557_600, size)
                file.write_table(pa.table([scattered(owner), scattered(rank), times], schema))


def scattered(numbers: np.ndarray) -> np.ndarray:
    """Different ids for different numbers, in no order."""
    return numbers * 2_654_435_761 % 2**32


def memory(field: str) -> int:
    """Bytes of this process: VmHWM (most pages held), RssAnon (pages of no file)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


class Watch:
    """The peak of memory without mapped files, looked at every 5 ms, and the seconds since the begin."""

    def __init__(self, most: float = 1e9) -> None:
        self.most = most  # seconds of the processor after which the work is stopped
        self.heap = self.begin = memory("RssAnon")
        self.started, self.cpu = time.perf_counter(), time.process_time()
        threading.Thread(target=self.look, daemon=True).start()

    def look(self) -> None:
        while True:
            self.heap = max(self.heap, memory("RssAnon"))
            if time.process_time() - self.cpu > self.most:
                end(self.found() | {"stopped_after_cpu_seconds": self.most})
            time.sleep(0.005)

    def found(self) -> dict[str, float]:
        return {
            "seconds": round(time.perf_counter() - self.started, 1),
            "cpu_seconds": round(time.process_time() - self.cpu, 1),
            "peak_gib": round(memory("VmHWM") / 2**30, 3),
            "heap_gib": round(self.heap / 2**30, 3),
            "heap_before_gib": round(self.begin / 2**30, 3),
        }


def end(found: dict[str, float]) -> None:
    """Print what was found, and end the process."""
    print("@@" + json.dumps(found), flush=True)
    os._exit(0)


def pack(source: Path, place: Path, k_core: int) -> dict[str, float]:
    """Pack the log, and say how large it is then."""
    from seqcl.data import Sequences, pack_to

    watch = Watch()
    pack_to(source, place, k_core=k_core)
    found, packed = watch.found(), Sequences.load(place)
    return found | {
        "users": packed.num_users,
        "items": packed.num_items,
        "interactions": packed.num_interactions,
        "packed_gib": round(packed.nbytes / 2**30, 2),
    }


def first_step(place: Path, windows: str) -> dict[str, float]:
    """Start a run on the packed log; ends at the first step of the optimizer."""
    import torch

    from seqcl import config, experiment
    from seqcl.training.optimizer import AdamW

    torch.set_num_threads(1)
    watch = Watch()

    def stop(*_: Any, **__: Any) -> None:
        end(watch.found())

    AdamW.step = stop  # type: ignore[method-assign]
    values: dict[str, Any] = {"model": "TwoTower", "dataset": str(place), "runs": str(place.parent / "runs")}
    values |= {"towers": {"sparse": True}, "next_item": {"negatives": 1024}, "ssl": {"weight": 0.0}}
    values |= {"data": {"windows": windows}, "eval": {"exclude_seen": True}}
    experiment.execute(config.experiment(values), progress=False)
    raise SystemExit("no step was made")


def piece(place: Path, name: str) -> dict[str, float]:
    """Make one piece over the mapped log."""
    from seqcl.augment.same_target import SameTarget
    from seqcl.augment.similarity import item_cf_iuf
    from seqcl.data import Sequences, leave_one_out, temporal

    sequences = Sequences.load(place)
    word, _, windows = name.partition(" ")
    if word == "leave_one_out":
        watch = Watch()
        split = leave_one_out(sequences, windows=windows)
    elif word == "temporal":
        watch = Watch()
        split = temporal(sequences, windows=windows)
    else:
        train = leave_one_out(sequences, windows="last").train
        work: dict[str, Callable[[], Any]] = {
            "item_counts": train.item_counts,
            "target_counts": train.target_counts,
            "correlations": lambda: item_cf_iuf(*train.known(), train.num_items, top_k=10),
            "same_target": lambda: SameTarget().prepare(train),
        }
        watch = Watch(MOST_SECONDS)
        work[word]()
        return watch.found()
    return watch.found() | {"windows": len(split.train)}


def apart(words: list[str], threads: int) -> dict[str, float]:
    """Run one measurement in a new process."""
    names = ("OMP_NUM_THREADS", "ARROW_NUM_THREADS", "OMP_THREAD_LIMIT")
    env = {**os.environ, **{name: str(threads) for name in names}, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, __file__, "--measure", *words], env=env, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("@@")]
    if not lines:
        raise SystemExit(f"{' '.join(words)} failed: {done.stderr.strip()[-500:]}")
    found: dict[str, float] = json.loads(lines[-1][2:])
    print(*words, json.dumps(found), flush=True)
    return found


def size(rows: int, users: int, items: int, home: Path) -> dict[str, Any]:
    """Measure everything at one size."""
    source, place = home / "log", home / "packed"
    started = time.perf_counter()
    make(source, rows, users, items)
    report: dict[str, Any] = {"rows": rows, "made_seconds": round(time.perf_counter() - started, 1)}
    report["parquet_gib"] = round(sum(file.stat().st_size for file in source.iterdir()) / 2**30, 2)
    report["pack"] = apart(["5", str(source), str(place)], threads=2)
    shutil.rmtree(place)
    report["pack_whole"] = apart(["0", str(source), str(place)], threads=2)
    shutil.rmtree(source)
    for windows in ("last", "sliding"):
        report[f"first_step_{windows}"] = apart(["step", str(place), windows], threads=1)
    for name in PIECES:
        report[name] = apart(["piece", str(place), name], threads=1)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="10000000,100000000", help="sizes of logs, separated by commas")
    parser.add_argument("--smoke", action="store_true", help="a small log, no claims")
    parser.add_argument(
        "--folder", type=Path, help="where the logs are made, in a folder that is removed (default: the system's)"
    )
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        what, place, word = chosen.measure
        work = {"step": lambda: first_step(Path(place), word), "piece": lambda: piece(Path(place), word)}
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
        end(pack(Path(place), Path(word), int(what)) if what.isdigit() else work[what]())
    sizes = [20_000] if chosen.smoke else [int(part) for part in chosen.rows.split(",")]
    users, items = (1000, 500) if chosen.smoke else (2_000_000, 1_000_000)
    reports = []
    for rows in sizes:
        with tempfile.TemporaryDirectory(dir=chosen.folder) as home:
            reports.append(size(rows, users, items, Path(home)))
    result: dict[str, Any] = {"benchmark": "pack", "date": date.today().isoformat(), "cores": os.cpu_count()}
    result |= {"smoke": chosen.smoke, "sizes": reports, "must": MUST}
    largest = reports[-1]["pack"]
    result["kept"] = largest["peak_gib"] <= MUST["pack_peak_gib"] and largest["seconds"] <= MUST["pack_seconds"]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
