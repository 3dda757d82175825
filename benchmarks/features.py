"""Memory that belongs to no file while two towers are built over a large catalogue with features: the last line is one JSON object.

    python benchmarks/features.py [--items 1000000] [--ids text] [--smoke]

Each item has a kind, three words, a price, a year, and a vector of 16 numbers, in the table of the packed log. The log is
made in a process of its own; a second one opens it, builds the model (width 16), and looks at RssAnon every 5 ms. Linux alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def make(items: int, ids: str, folder: Path) -> None:
    """Write a packed log over this many items, each of which occurs."""
    import numpy as np
    import pandas as pd

    from seqcl.data import Interactions, pack

    rng, users = np.random.default_rng(0), max(items // 10, 1)
    drawn = np.concatenate((np.arange(items), rng.integers(0, items, 5 * users)))
    names = np.array([f"item{item:09}" for item in range(items)]) if ids == "text" else 3 * np.arange(items) + 5
    owners = np.concatenate((np.arange(items) % users, np.repeat(np.arange(users), 5)))
    words = np.array([f"w{word} w{word * 7 % 500} w{word * 11 % 500}" for word in range(500)], object)
    columns: dict[str, Any] = {
        "kind": np.array([f"k{kind}" for kind in range(2000)], object)[np.arange(items) % 2000],
        "words": words[rng.integers(0, 500, items)],
        "price": np.where(rng.random(items) < 0.02, np.nan, rng.gamma(2, 20, items)),
        "year": rng.integers(1950, 2026, items),
        "image": list(rng.normal(size=(items, 16)).astype(np.float32)),
    }
    frame = pd.DataFrame({"user_id": owners, "item_id": names[drawn]})
    pack(Interactions.from_frame(frame, time=None, item_features=pd.DataFrame(columns, index=names))).save(folder)


def anonymous() -> int:
    """RssAnon of this process in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def measure(folder: Path) -> dict[str, Any]:
    """Build the model, and look at the memory meanwhile."""
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    from seqcl.config import experiment
    from seqcl.data import Sequences, leave_one_out

    sequences = Sequences.load(folder)
    split = leave_one_out(sequences, windows="last")
    values = {"model": "TwoTower", "dataset": "x", "encoder": {"dim": 16, "layers": 1}, "towers": {"sparse": True}}
    config, done = experiment(values), threading.Event()
    before = most = anonymous()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.005):
            most = max(most, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.process_time()
    model = config.build(split.train)
    seconds = time.process_time() - started
    done.set()
    watcher.join()
    after = anonymous()
    return {
        "items": sequences.num_items,
        "before_mb": before >> 20,
        "peak_mb": max(most, after) >> 20,
        "after_mb": after >> 20,
        "bytes_an_item_at_the_peak": round((max(most, after) - before) / sequences.num_items),
        "bytes_an_item_after": round((after - before) / sequences.num_items),
        "processor_seconds": round(seconds, 1),
        "features": model.identity["features"],  # type: ignore[union-attr]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--ids", choices=("numbers", "text"), default="numbers")
    parser.add_argument("--smoke", action="store_true", help="a small catalogue, no claims")
    parser.add_argument("--work", choices=("make", "measure"), help=argparse.SUPPRESS)
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    items = 2000 if chosen.smoke else chosen.items
    if chosen.work == "make":
        make(items, chosen.ids, chosen.log)
    elif chosen.work == "measure":
        print(json.dumps(measure(chosen.log)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            for work in ("make", "measure"):
                words = [sys.executable, __file__, "--items", str(items), "--ids", chosen.ids, "--work", work]
                subprocess.run([*words, "--log", f"{folder}/log"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
