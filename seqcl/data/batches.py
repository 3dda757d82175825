"""Windows become batches on the device that holds the packed array: one gather a batch, no Python over rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from seqcl.errors import UserError, unknown
from seqcl.types import PAD, SeqBatch, Windows

POOL = 50
"""Batches drawn at random together and then sorted by length: little padding, and still a different mix every epoch."""

TARGETS = ("all", "last", "none")


class Loader:
    """Batches of windows: right-padded, trimmed to their longest row, made on the device.

    Iterating gives every window once in its order; `epoch` gives them in the order of an epoch.

    Args:
        windows: what to read.
        batch_size: rows a batch; the last one of an epoch may be smaller.
        device: where the packed array goes once and the batches are made.
        shuffle_seed: seed of the epochs' order; None: epochs run in the order of the windows.
        bucket: put rows of like length in one batch.
        targets: all: the next item at every position from `first` on, (B, L); last: after the newest, (B,); none.
        times: give the times of the items too, (B, L) float64.
    """

    def __init__(
        self,
        windows: Windows,
        *,
        batch_size: int,
        device: str | torch.device = "cpu",
        shuffle_seed: int | None = None,
        bucket: bool = True,
        targets: str = "all",
        times: bool = False,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size must be 1 or more, not {batch_size}")
        if targets not in TARGETS:
            raise unknown("targets", targets, TARGETS)
        if times and windows.times is None:
            raise UserError("times are asked for, but the data has none")
        self.windows = windows
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.shuffle_seed = shuffle_seed
        self.bucket = bucket
        self.targets = targets
        self.lengths = windows.stop - windows.start  # (W,) on the host, where a batch's width costs no wait
        self.items = tensor(windows.items, self.device)  # (T,) int32
        self.times = tensor(windows.times, self.device) if times and windows.times is not None else None
        self.start = tensor(windows.start, self.device)  # (W,)
        self.stop = tensor(windows.stop, self.device)  # (W,)
        self.first = tensor(windows.first, self.device)  # (W,)
        self.users = tensor(windows.users, self.device)  # (W,)

    def __len__(self) -> int:
        return -(-len(self.windows) // self.batch_size)

    def __iter__(self) -> Iterator[SeqBatch]:
        """Every window once, in order."""
        return self.walk(np.arange(len(self.windows)), range(len(self)))

    def epoch(self, number: int, start: int = 0) -> Iterator[SeqBatch]:
        """The batches of an epoch from batch `start` on; the same for the same seed and number, however often asked.

        Args:
            number: which epoch, 0 or more.
            start: the first batch wanted, to go on in the middle of an epoch.
        """
        if self.shuffle_seed is None:
            return self.walk(np.arange(len(self.windows)), range(start, len(self)))
        random = np.random.default_rng([self.shuffle_seed, number])
        order = random.permutation(len(self.windows))
        if not self.bucket:
            return self.walk(order, range(start, len(self)))
        pool = np.arange(len(order)) // (POOL * self.batch_size)
        order = order[np.argsort(pool * (self.windows.max_len + 1) + self.lengths[order], kind="stable")]
        return self.walk(order, random.permutation(len(self))[start:])

    def walk(self, order: np.ndarray, batches: range | np.ndarray) -> Iterator[SeqBatch]:
        """The named chunks of an order, one after the other."""
        on_device = tensor(order, self.device)
        for number in batches:
            chunk = slice(int(number) * self.batch_size, (int(number) + 1) * self.batch_size)
            yield self.cut(on_device[chunk], int(self.lengths[order[chunk]].max()))

    def gather(self, index: np.ndarray | Tensor) -> SeqBatch:
        """The batch of the windows numbered by `index`, (B,), in its order; an index on the host costs no wait."""
        host = index.cpu().numpy() if isinstance(index, Tensor) else np.asarray(index)
        return self.cut(torch.as_tensor(index, device=self.device), int(self.lengths[host].max()))

    def cut(self, index: Tensor, width: int) -> SeqBatch:
        """The batch of the windows `index` (B,), whose longest has `width` items."""
        start = self.start[index]  # (B,)
        lengths = self.stop[index] - start  # (B,)
        time = torch.arange(width + 1, device=self.device)  # (L + 1,)
        place = (start[:, None] + time).clamp_(max=len(self.items) - 1)  # (B, L + 1)
        read = self.items.index_select(0, place.view(-1)).view_as(place).long()  # (B, L + 1), one more than it reads
        padding = time[:-1] >= lengths[:, None]  # (B, L)
        return SeqBatch(
            items=read[:, :-1].masked_fill(padding, PAD),
            lengths=lengths,
            targets=self.pick_targets(read, padding, self.first[index] - start, lengths),
            users=self.users[index],
            times=None if self.times is None else self.times[place[:, :-1]].masked_fill(padding, 0.0),
        )

    def pick_targets(self, read: Tensor, padding: Tensor, early: Tensor, lengths: Tensor) -> Tensor | None:
        """Targets out of the items read; the `early` first positions (B,) of a row have none."""
        if self.targets == "none":
            return None
        if self.targets == "last":
            return read.gather(1, lengths[:, None])[:, 0]  # (B,)
        time = torch.arange(padding.shape[1], device=self.device)  # (L,)
        return read[:, 1:].masked_fill(padding | (time < early[:, None]), PAD)  # (B, L)


def tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """The array on a device; on the CPU it is shared, not copied, and a mapped file stays mapped."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nothing here writes to it
        return torch.from_numpy(np.asarray(array)).to(device)
