"""`seqcl serve` under load on loopback: requests a second, waiting times, memory over many requests; the last line is one JSON object.

    python benchmarks/serve.py [--requests 100000] [--rate 500] [--items 12101] [--index hnsw] [--threads 1] [--smoke]
    python benchmarks/serve.py --items 1000000 --index ivf --rate 100 --requests 4000
    python benchmarks/serve.py --place RUN|BUNDLE

Without --place it exports a catalogue as large as Beauty's: vectors of width 64 around the centres of their kinds, and a
SASRec of the default size with new weights, on which times do not depend. A server of its own process gets histories of 1 to
50 items and gives 10. First as many at a time as --connections, as fast as they are answered. Then --requests at a steady
--rate, of which none waits for the one before: what a late one has waited counts from when it was due. Memory is that of
the server alone, without mapped files (RssAnon of Linux), before the steady load, in its middle and at its end. Client
and server share the cores. `--smoke` takes seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
DIM, MAX_LEN, KIND = 64, 50, 50
"""KIND: items of a kind."""
WARM = 200
"""Requests before anything is measured."""


def export(folder: Path, items: int, index: str) -> Path:
    """Write a bundle of so many items."""
    import torch

    from seqcl.encoders import ENCODERS
    from seqcl.retrieval.bundle import write_bundle
    from seqcl.retrieval.query import Query

    torch.manual_seed(0)
    encoder = ENCODERS.find("SASRec")(num_items=items, max_len=MAX_LEN, dim=DIM)
    centres = torch.randn(max(1, items // KIND), DIM)
    weights = encoder.state_dict()
    table = next(name for name, one in weights.items() if one.shape == (items + 2, DIM))
    vectors = weights[table][1:-1]
    vectors.copy_(centres[torch.randint(len(centres), (items,))] + 0.5 * torch.randn(items, DIM))
    query = Query(
        encoder="SASRec", options={"dim": DIM}, longest=MAX_LEN, max_len=MAX_LEN, num_items=items, similarity="dot",
        temperature=1.0,
    )  # fmt: skip
    about = {"model": "SASRec", "data": {"name": "kinds", "items": items}}
    ids = np.arange(1, items + 1)
    write_bundle(folder, query=query, weights=weights, vectors=[vectors], item_ids=ids, kind=index, about=about)
    return folder


@contextmanager
def server(place: Path, threads: int) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Inside, a server answers at a port; it is ended at the end."""
    words = ["serve", str(place), "--port", "0", "--threads", str(threads)]
    process = subprocess.Popen(
        [sys.executable, "-m", "seqcl", *words], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.search(r":(\d+) ", process.stdout.readline())
        assert found, "the server did not start"
        yield int(found[1]), process
    finally:
        process.terminate()
        process.wait()


class Client:
    """One connection that stays open."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def post(self, request: bytes) -> None:
        """Send a request and wait for its answer, which must be a list."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        body = await self.reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200") or b'"score"' not in body:
            raise RuntimeError(f"{head!r} {body[:200]!r}")


def requests_of(item_ids: list[Any], count: int) -> list[bytes]:
    """Requests for random histories, as bytes."""
    rng, made = np.random.default_rng(0), []
    for _ in range(count):
        places = rng.integers(0, len(item_ids), rng.integers(1, MAX_LEN + 1)).tolist()
        body = json.dumps({"items": [item_ids[place] for place in places], "k": 10}).encode()
        head = f"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        made.append(head.encode() + b"\r\n\r\n" + body)
    return made


async def fastest(clients: list[Client], requests: list[bytes]) -> float:
    """Requests a second, where each connection sends the next one when it has its answer."""
    left = iter(requests)

    async def work(client: Client) -> None:
        for request in left:
            await client.post(request)

    started = time.perf_counter()
    await asyncio.gather(*map(work, clients))
    return len(requests) / (time.perf_counter() - started)


async def steady(clients: list[Client], requests: list[bytes], rate: float, count: int, pid: int) -> dict[str, Any]:
    """Waiting times and memory under `count` requests, of which one is due every 1 / rate seconds."""
    free: asyncio.Queue[Client] = asyncio.Queue()
    for client in clients:
        free.put_nowait(client)
    waits, memory, before = np.zeros(count), [anonymous_bytes(pid)], seconds_of(pid)
    tasks: set[asyncio.Task[None]] = set()
    started = time.perf_counter()

    async def one(number: int) -> None:
        client = await free.get()
        await client.post(requests[number % len(requests)])
        free.put_nowait(client)
        waits[number] = time.perf_counter() - started - number / rate

    for number in range(count):
        if (early := started + number / rate - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        tasks.add(task := asyncio.create_task(one(number)))
        task.add_done_callback(tasks.discard)
        if number == count // 2:
            memory.append(anonymous_bytes(pid))
    await asyncio.gather(*tasks)
    seconds = time.perf_counter() - started
    memory.append(anonymous_bytes(pid))
    p50, p99 = np.percentile(waits, (50, 99))
    return {
        "rate": round(count / seconds, 1),
        "p50_ms": round(1000 * p50, 2),
        "p99_ms": round(1000 * p99, 2),
        "max_ms": round(1000 * waits.max(), 2),
        "server_ms_of_cpu": round(1000 * (seconds_of(pid) - before) / count, 2),
        "server_mb": [size // 10**6 for size in memory],
    }


def anonymous_bytes(pid: int) -> int:
    """Resident memory of a process without mapped files; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def seconds_of(pid: int) -> float:
    """Processor seconds of a process; NaN where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(port: int, pid: int, item_ids: list[Any], chosen: argparse.Namespace) -> dict[str, Any]:
    """Put a server under load."""
    clients = [Client(port) for _ in range(chosen.connections)]
    await asyncio.gather(*(client.open() for client in clients))
    requests = requests_of(item_ids, min(5000, chosen.requests))
    await fastest(clients, requests[:WARM])
    before = seconds_of(pid)
    most = await fastest(clients, requests)
    spent = (seconds_of(pid) - before) / len(requests)
    found = await steady(clients, requests, chosen.rate, chosen.requests, pid)
    return {"most_per_second": round(most, 1), "server_ms_of_cpu": round(1000 * spent, 2), "steady": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place", type=Path, help="a run or a bundle to serve")
    parser.add_argument("--items", type=int, default=12101)
    parser.add_argument("--index", default="hnsw")
    parser.add_argument("--requests", type=int, default=100_000, help="of the steady load")
    parser.add_argument("--rate", type=float, default=500, help="steady requests a second")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1, help="of the server")
    parser.add_argument("--smoke", action="store_true")
    chosen = parser.parse_args()
    if chosen.smoke:
        chosen.items, chosen.requests, chosen.rate = 500, 300, 100
    with tempfile.TemporaryDirectory() as folder:
        place = chosen.place or export(Path(folder) / "bundle", chosen.items, chosen.index)
        from seqcl.serve.opening import open_place

        item_ids = open_place(place).asked.item_ids.tolist()
        with server(place, chosen.threads) as (port, process):
            found = asyncio.run(load(port, process.pid, item_ids, chosen))
    import torch

    about = {"items": len(item_ids), "index": None if chosen.place else chosen.index, "requests": chosen.requests}
    about |= {"connections": chosen.connections, "threads": chosen.threads, "cores": os.cpu_count()}
    about |= {"torch": torch.__version__, "machine": platform.machine()}
    print(json.dumps({"benchmark": "serve", **about, **found}))


if __name__ == "__main__":
    main()
