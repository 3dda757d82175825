"""A tiny model and loader with every kind of state that a checkpoint can lose; as a script, a run to be killed."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqcl.training import FitResult, Trainer, load_checkpoint
from seqcl.types import SeqBatch

ITEMS, WIDTH, ROWS, LENGTH, BATCH = 20, 8, 24, 6, 4
IDENTITY = {"data_fingerprint": "abc", "num_items": ITEMS}


class TinyLoader:
    """24 fixed rows in batches of 4, shuffled by (seed, epoch)."""

    def __init__(self, before: Callable[[int, int], None] = lambda epoch, batch: None) -> None:
        generator = torch.Generator().manual_seed(5)
        self.items = torch.randint(1, ITEMS + 1, (ROWS, LENGTH), generator=generator)
        self.before = before

    def __len__(self) -> int:
        return ROWS // BATCH

    def __iter__(self) -> Iterator[SeqBatch]:
        for index in torch.arange(ROWS).split(BATCH):
            yield self.batch(index)

    def epoch(self, number: int, start: int = 0) -> Iterator[SeqBatch]:
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(number))
        for position, index in enumerate(order.split(BATCH)):
            if position >= start:
                self.before(number, position)
                yield self.batch(index)

    def batch(self, index: Tensor) -> SeqBatch:
        items = self.items[index]
        times = torch.full(items.shape, 1.7e9 + 1, dtype=torch.float64)
        return SeqBatch(items[:, :-1], torch.full((len(index),), LENGTH - 1), items[:, 1:], times=times[:, :-1])


class TinyEncoder(nn.Module):
    """A table, dropout, and one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(ITEMS + 2, WIDTH)
        self.dropout = nn.Dropout(0.3)
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, batch: SeqBatch) -> Tensor:
        return torch.tanh(self.layer(self.dropout(self.table(batch.items))))


class TinyObjective(nn.Module):
    """A next-item term and one against a queue; noise from all three random sources; state of steps and of epochs."""

    queue: Tensor
    centre: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("queue", torch.zeros(3, WIDTH))
        self.register_buffer("centre", torch.zeros(WIDTH))
        self.observed: dict[str, Tensor] = {}
        self.newest: Tensor | None = None

    def forward(self, encoder: TinyEncoder, batch: SeqBatch) -> dict[str, Tensor]:
        assert batch.targets is not None
        states = encoder(batch)
        logits = states @ encoder.table.weight.T
        noise = torch.from_numpy(np.random.normal(size=WIDTH)).float() * random.gauss(1, 0.1)
        queries = self.head(states[:, -1] + 0.1 * noise)
        self.newest = states[:, -1].detach().mean(0)
        self.observed = {"alignment": queries.detach().norm(), "uniformity": -queries.detach().std()}
        against = (queries @ (self.queue.T + self.centre[:, None])).logsumexp(1).mean()
        return {
            "next_item": nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()),
            "contrast": 0.1 * against,
        }

    def after_step(self, encoder: TinyEncoder) -> None:
        assert self.newest is not None
        self.queue.copy_(torch.cat([self.newest[None], self.queue[:-1]]))

    def before_epoch(self, encoder: TinyEncoder, batches: TinyLoader, *, epoch: int, epochs: int) -> None:
        self.centre.copy_(encoder.table.weight.detach().mean(0) + torch.rand(WIDTH))


class TinyModel(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        self.encoder = TinyEncoder()
        self.objective = TinyObjective()

    def forward(self, batch: SeqBatch) -> dict[str, Tensor]:
        return self.objective(self.encoder, batch)

    def score(self) -> dict[str, float]:
        """A metric that rises, falls and rises with the weights."""
        value = float(self.encoder.table.weight.detach().sum().sin())
        return {"ndcg@10": value, "recall@10": value / 2}


plain = partial(Trainer, ema=0.0, warmup=0, weight_decay=0.0)
"""A trainer without average, warm-up and weight decay."""

TRAINER = Trainer(
    epochs=4, lr=0.05, warmup=3, schedule="cosine", weight_decay=0.1, clip=0.5, ema=0.9, patience=2, eval_every=2
)


def train(
    folder: Path | None,
    *,
    trainer: Trainer = TRAINER,
    before: Callable[[int, int], None] = lambda epoch, batch: None,
    **options: Any,
) -> tuple[TinyModel, FitResult]:
    """Run the tiny model to its end."""
    model = TinyModel()
    arguments: dict[str, Any] = {"validate": model.score, "identity": IDENTITY, "progress": False} | options
    return model, trainer.fit(model, TinyLoader(before), folder=folder, **arguments)


def final(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the last checkpoint: weights, buffers, moments, averages and random states."""
    return load_checkpoint(folder / "checkpoints" / "last.safetensors")[0]


def timeless(result: FitResult) -> list[dict[str, float]]:
    """The history without its times, which differ between two runs of the same bits."""
    clocks = {"seconds", "train_seconds", "items_per_second"}
    return [{name: value for name, value in row.items() if name not in clocks} for row in result.history]


if __name__ == "__main__":
    from dataclasses import replace

    def slowly(epoch: int, batch: int) -> None:
        """Leave time for being killed, and never come to the end."""
        time.sleep(600 if (epoch, batch) == (3, 5) else 0.05)

    train(Path(sys.argv[1]), trainer=replace(TRAINER, save_minutes=0), resume=sys.argv[2] == "resume", before=slowly)
