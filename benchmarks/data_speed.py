"""Time and memory from a file to packed sequences: 1 million rows of CSV, 20 million of Parquet and of CSV.

Each file is made in a temporary folder and read in a process of its own: the peak of memory is that of one file.
Memory is counted above what the process holds after its imports. Content is 3 columns of 8 bytes a row.

    python benchmarks/data_speed.py                    # all of it; needs 2 GB of disk and 4 GB of memory
    python benchmarks/data_speed.py --rows 1000000     # the small one alone
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BYTES_A_ROW = 24
MUST = {"csv_1m_seconds": 3.0, "csv_1m_over_content": 6.0, "peak_gib_20m": 4.0}


def make(path: Path, rows: int, seed: int) -> None:
    """Write a log of users and items with long tails, in time order over all users, as a shop has it."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    random = np.random.default_rng(seed)
    schema = pa.schema([("user_id", pa.int64()), ("item_id", pa.int64()), ("timestamp", pa.int64())])
    text = csv.CSVWriter(path, schema) if path.suffix == ".csv" else None
    binary = parquet.ParquetWriter(path, schema) if text is None else None
    part = 1_000_000
    for begin in range(0, rows, part):
        size = min(part, rows - begin)
        users = (random.random(size) ** 2 * rows / 20).astype(np.int64)
        items = (random.random(size) ** 3 * rows / 50).astype(np.int64)
        times = 1_500_000_000 + np.sort(random.integers(0, 86_400, size)) + 86_400 * (begin // part)
        table = pa.table([users, items, times], schema)
        (text or binary).write_table(table)
    (text or binary).close()


def measure(path: Path) -> dict[str, float]:
    """Read, pack and split one file in this process."""
    started = time.perf_counter()
    from seqcl.data import leave_one_out, pack, read

    imported = time.perf_counter()
    before = resident("VmRSS")
    begin, cpu = time.perf_counter(), time.process_time()
    log = read(path)
    read_seconds = time.perf_counter() - begin
    packed = pack(log, k_core=2)
    seconds = time.perf_counter() - begin
    cpu_seconds = time.process_time() - cpu
    peak = resident("VmHWM")
    rows = len(log)
    del log
    split = leave_one_out(packed, max_len=50)
    return {
        "rows": rows,
        "users": packed.num_users,
        "items": packed.num_items,
        "import_seconds": imported - started,
        "read_seconds": read_seconds,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,  # of all threads; comparable on a shared machine too
        "split_seconds": time.perf_counter() - begin - seconds,
        "peak_gib": peak / 2**30,
        "over_content": (peak - before) / (rows * BYTES_A_ROW),
        "train_windows": len(split.train),
    }


def resident(field: str) -> int:
    """Return the bytes of memory that this process holds (VmRSS) or held at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def apart(path: Path, repeats: int) -> list[dict[str, float]]:
    """Run `measure` in new processes on two threads."""
    threads = {name: "2" for name in ("OMP_NUM_THREADS", "ARROW_NUM_THREADS", "OMP_THREAD_LIMIT")}
    found = []
    for _ in range(repeats):
        command = [sys.executable, __file__, "--measure", str(path)]
        done = subprocess.run(command, env={**os.environ, **threads}, check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(path.name, json.dumps(found[-1]), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000, help="rows of the large files; 1000000 leaves them out")
    parser.add_argument("--repeats", type=int, default=5, help="times the small file is read")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(measure(chosen.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.csv"
        make(small, 1_000_000, seed=0)
        runs = apart(small, chosen.repeats)
        result = {
            "csv_1m_seconds": statistics.median(run["seconds"] for run in runs),
            "csv_1m_slowest_seconds": max(run["seconds"] for run in runs),
            "csv_1m_cpu_seconds": statistics.median(run["cpu_seconds"] for run in runs),
            "csv_1m_over_content": max(run["over_content"] for run in runs),
        }
        if chosen.rows > 1_000_000:
            for suffix in ("parquet", "csv"):
                large = Path(folder) / f"large.{suffix}"
                make(large, chosen.rows, seed=1)
                run = apart(large, 1)[0]
                large.unlink()
                result |= {
                    f"{suffix}_{key}": run[key]
                    for key in ("rows", "seconds", "cpu_seconds", "peak_gib", "over_content")
                }
            result["peak_gib_20m"] = max(result["parquet_peak_gib"], result["csv_peak_gib"])
        result["must"] = MUST
        result["kept"] = all(result[key] <= bound for key, bound in MUST.items() if key in result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
