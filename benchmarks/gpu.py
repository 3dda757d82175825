"""Training on a GPU: items a second, milliseconds a step, the share of time in kernels, and the floor beside them.

    python benchmarks/gpu.py [--batch 256,1024,4096] [--ways fixed,compiled] [--steps 100] [--quality 3] [--smoke]

Each configuration is trained with each batch size and in each way: packed (`--train.shapes packed`), fixed (the default on a
GPU), compiled (`--train.compile true`), and the last two in bfloat16. A figure is the median of five stretches of `--steps`
steps, after one to warm up and compile; the device is waited for at the end of a stretch alone. The share of time in
kernels is their time in a profiled stretch, over the time of an unprofiled one.

The floor of a step is the larger of two times. Arithmetic: the products of the step for its real items alone, forward and
backward, counted by torch, at the rate at which matrices of 4096 x 4096 are multiplied. Memory: 48 bytes a weight (weight,
gradient, two moments and average, read and written once in float32) at the rate at which an array is copied.

With --quality N the best validation NDCG@10 of `--epochs` epochs is compared too, of N seeds each, at every batch size.
Without CUDA nothing is measured; `--device cpu --smoke` tries the program out. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

WAYS: dict[str, dict[str, Any]] = {
    "packed": {"shapes": "packed"},
    "fixed": {"shapes": "fixed"},
    "compiled": {"shapes": "fixed", "compile": True},
    "fixed-bf16": {"shapes": "fixed", "precision": "bf16"},
    "compiled-bf16": {"shapes": "fixed", "compile": True, "precision": "bf16"},
}
WEIGHT_BYTES = 48


def wait(device: Any) -> None:
    """Wait until the device has done everything."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], Any], device: Any) -> float:
    """Seconds of some work on the device."""
    wait(device)
    started = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - started


def rates(device: Any, *, smoke: bool) -> dict[str, float]:
    """Measure what the device can do: operations a second of square products in each precision, bytes a second of a copy."""
    import torch

    size, best = 256 if smoke else 4096, {}
    for name, kind in (("32", torch.float32), ("bf16", torch.bfloat16)):
        one, two = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
        best[name] = 2 * size**3 / min(timed(lambda one=one, two=two: one @ two, device) for _ in range(10))  # type: ignore[misc]
    source = torch.empty(2**22 if smoke else 2**28, device=device)
    target = torch.empty_like(source)
    best["bytes"] = 2 * source.nbytes / min(timed(lambda: target.copy_(source), device) for _ in range(10))
    return best


def endless(loader: Any) -> Iterator[Any]:
    """Batches of one epoch after the other."""
    number = 0
    while True:
        yield from loader.epoch(number)
        number += 1


class Way:
    """One model in training, in one of the ways."""

    def __init__(self, experiment: Any, split: Any, batch: int, options: dict[str, Any], device: Any) -> None:
        import torch

        from seqcl.experiment import training_batches
        from seqcl.training.learner import Learner

        self.device, self.items = device, torch.zeros((), dtype=torch.int64, device=device)
        self.trainer = trainer = replace(experiment.train, batch_size=batch, **options)
        torch.manual_seed(0)
        self.model = experiment.build(split.train).to(device)
        times = self.model.objective.times_needed
        loader = training_batches(split, trainer, seed=0, device=device, times=times)
        self.model.objective.before_epoch(self.model.encoder, loader, epoch=0, epochs=1)
        self.model.train()
        self.batches, self.number = endless(loader), 0
        self.learner = Learner(
            self.model,
            device=device,
            precision=trainer.precision,
            weight_decay=trainer.weight_decay,
            ema=trainer.ema,
            fixed=trainer.fixed_on(device),
        )

    def step(self) -> None:
        """Do what the loop of training does in a step."""
        batch, learner = next(self.batches), self.learner
        total, losses = learner.backward(learner.forward(batch))
        learner.optimizer.step(self.trainer.lr)
        self.number += 1
        if learner.average is not None:
            learner.average.update(self.number)
        objective, items = self.model.objective, batch.lengths.sum()
        objective.after_step(learner.encoder)
        learner.meter.add_step(losses, objective.observed, total=total, items=items, missing=objective.missing)
        self.items += items
        if learner.meter.full:
            learner.meter.flush()

    def measure(self, steps: int, rounds: int) -> dict[str, float]:
        """Items a second, milliseconds a step and the share of kernels, of stretches of so many steps."""
        import torch
        from torch.profiler import ProfilerActivity, profile

        from seqcl.training.compiled import compiled

        def stretch() -> None:
            for _ in range(steps):
                self.step()

        with compiled(self.model.encoder) if self.trainer.compile else nullcontext():
            stretch()
            self.items.zero_()
            spent = [timed(stretch, self.device) for _ in range(rounds)]
            items = int(self.items) / rounds
            cuda = self.device.type == "cuda"
            with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as seen:
                stretch()
                wait(self.device)
        name = "self_device_time_total" if cuda else "self_cpu_time_total"
        kernels = sum(getattr(one, name) for one in seen.key_averages()) / 1e6
        seconds = statistics.median(spent)
        found = {"items_per_second": round(items / seconds), "ms_a_step": round(1000 * seconds / steps, 3)}
        found["kernel_share"] = round(kernels / seconds, 3)
        if cuda:
            found["peak_mb"] = torch.cuda.max_memory_allocated(self.device) // 2**20
            torch.cuda.reset_peak_memory_stats(self.device)
        return found


def product(target: Any, one: Any, two: Any, **_: Any) -> int:
    """Operations of a product that is added to a tensor in place, from the three shapes; torch does not count it by itself."""
    return 2 * one[0] * one[1] * two[1]


def needed(experiment: Any, split: Any, batch: int) -> dict[str, float]:
    """Operations of the products of one step for real items alone, and bytes of its weights."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    way = Way(experiment, split, batch, WAYS["packed"], torch.device("cpu"))
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: product})
    with counter, sdpa_kernel(SDPBackend.MATH):  # the products of a fused attention would not be counted
        way.step()
    weights = sum(one.numel() for one in way.model.parameters() if one.requires_grad)
    return {"operations": float(counter.get_total_flops()), "bytes": float(WEIGHT_BYTES * weights)}


def quality(words: list[str], options: dict[str, Any], seeds: int) -> list[float]:
    """The best validation NDCG@10 of each seed."""
    from seqcl import config
    from seqcl.experiment import execute

    words = words + [word for name, value in options.items() for word in (f"--train.{name}", str(value).lower())]
    found = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            more = ["--runs", folder, "--seed", str(seed), "--test", "false"]
            run = execute(config.resolve([*words, *more]), progress=False)
            found.append(round(run.metrics["valid"]["ndcg@10"], 4))
    return found


def compare(words: list[str], chosen: argparse.Namespace, speed: dict[str, float]) -> Iterator[dict[str, Any]]:
    """One row for each batch size and way, of one configuration."""
    import torch

    from seqcl import config

    experiment, device = config.resolve(words), torch.device(chosen.device)
    split = experiment.data.split_windows(experiment.data.sequences(experiment.options.dataset))
    for batch in map(int, chosen.batch.split(",")):
        work = needed(experiment, split, batch)
        for name in chosen.ways.split(","):
            options = WAYS[name]
            found: dict[str, Any] = {"model": experiment.options.model, "batch": batch, "way": name}
            found |= Way(experiment, split, batch, options, device).measure(chosen.steps, 1 if chosen.smoke else 5)
            floors = {
                "arithmetic": 1000 * work["operations"] / speed[options.get("precision", "32")],
                "memory": 1000 * work["bytes"] / speed["bytes"],
            }
            found |= {f"floor_{kind}_ms": float(f"{value:.3g}") for kind, value in floors.items()}
            found["over_floor"] = round(found["ms_a_step"] / max(floors.values()), 1)
            if chosen.quality:
                trained = {"batch_size": batch, "epochs": chosen.epochs, **options}
                found["valid_ndcg@10"] = quality([*words, "--device", chosen.device], trained, chosen.quality)
            yield found


def line(found: dict[str, Any]) -> str:
    """A row as a person reads it."""
    floors = f"{found['floor_arithmetic_ms']:>9g}{found['floor_memory_ms']:>9g}{found['over_floor']:>8.1f}"
    figures = f"{found['items_per_second']:>12,}{found['ms_a_step']:>9.2f}{found['kernel_share']:>9.0%}{floors}"
    best = "  " + " ".join(map(str, found["valid_ndcg@10"])) if "valid_ndcg@10" in found else ""
    return f"{found['model']:<8}{found['batch']:>6} {found['way']:<14}{figures}{best}"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    configs = [str(ROOT / "configs" / f"beauty-{name}.yaml") for name in ("sasrec", "cl4rec")]
    parser.add_argument(
        "--config", nargs="+", default=configs, help="configurations (default: SASRec and CL4Rec on Beauty)"
    )
    parser.add_argument("--dataset", help="another data set than theirs, such as markov")
    parser.add_argument("--batch", default="256,1024,4096", help="batch sizes, separated by commas")
    parser.add_argument("--ways", default=",".join(WAYS), help=f"some of {', '.join(WAYS)}")
    parser.add_argument("--steps", type=int, default=100, help="steps of a stretch (default: 100)")
    parser.add_argument("--quality", type=int, default=0, metavar="SEEDS", help="also train with so many seeds")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of --quality (default: 10)")
    parser.add_argument("--device", default="cuda", help="cuda, or cuda:1; cpu with --smoke")
    parser.add_argument("--smoke", action="store_true", help="CL4Rec on a small Markov set in two ways, no claims")
    chosen = parser.parse_args(words)
    import torch

    unknown = [way for way in chosen.ways.split(",") if way not in WAYS]
    if unknown:
        parser.error(f"--ways: {unknown[0]} is not one of {', '.join(WAYS)}")
    if chosen.device == "cpu" and not chosen.smoke:
        parser.error("--device cpu: what is measured here is a GPU; with --smoke the program is tried out")
    if chosen.device != "cpu" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --device cpu --smoke tries the program out")
    if chosen.smoke:
        chosen.dataset, chosen.batch, chosen.ways, chosen.steps, chosen.epochs = "markov", "16", "packed,fixed", 2, 1
        chosen.config = chosen.config[-1:]
    device = torch.device(chosen.device)
    speed, rows = rates(device, smoke=chosen.smoke), []
    print(f"{'':<29}{'items/s':>12}{'ms/step':>9}{'kernels':>9}{'floor':>9}{'memory':>9}{'over':>8}")
    for configuration in chosen.config:
        given = ["--config", configuration, *(["--dataset", chosen.dataset] if chosen.dataset else [])]
        for found in compare(given, chosen, speed):
            print(line(found), flush=True)
            rows.append(found)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    about = {"date": date.today().isoformat(), "torch": torch.__version__, "device": name, "smoke": chosen.smoke}
    print(json.dumps({"benchmark": "gpu", **about, "rates": speed, "rows": rows}))


if __name__ == "__main__":
    main()
