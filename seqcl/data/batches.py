"""Make batches of windows on the device that holds the packed array: one gather a batch, no Python loop over rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from seqcl.errors import UserError, unknown
from seqcl.mapped import shared
from seqcl.shapes import half_above, step_above
from seqcl.types import PAD, SeqBatch, Windows

POOL = 50
"""Batches whose rows are drawn at random and then sorted by length together: little padding, another mix every epoch."""

TARGETS = ("all", "last", "none")


class Loader:
    """Batches of windows: right-padded, trimmed to their longest row, made on the device.

    Iterating gives every window once, in order; `epoch` gives the batches of an epoch, shuffled.

    Args:
        windows: the windows to make batches of.
        batch_size: rows a batch; the last one of an epoch may be smaller.
        device: the packed array is copied there once, and batches are made there.
        shuffle_seed: seed of the order of epochs; None: epochs follow the order of the windows.
        bucket: put rows of similar length in one batch.
        targets: all: the next item at every position from `first` on, (B, L); last: the item after the newest, (B,); none.
        times: give the times of the items too, (B, L) float64.
        fixed: trim to the longest window or a half, a quarter, ... of it, and say where the targets are, so that shapes come
            again and nothing waits for the device.

    Raises:
        UserError: an option is not valid, or the data has no times.
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
        fixed: bool = False,
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
        self.targets, self.fixed = targets, fixed
        self.lengths = windows.stop - windows.start  # (W,) on the host, so that a width needs no wait for the device
        self.items = tensor(windows.items, self.device)  # (T,) int32
        self.times = tensor(windows.times, self.device) if times and windows.times is not None else None
        self.start = tensor(windows.start, self.device)  # (W,)
        self.stop = tensor(windows.stop, self.device)  # (W,)
        self.first = tensor(windows.first, self.device)  # (W,)
        self.users = tensor(windows.users, self.device)  # (W,)

    def __len__(self) -> int:
        return -(-len(self.windows) // self.batch_size)

    def __iter__(self) -> Iterator[SeqBatch]:
        """Batches of every window once, in order."""
        return self.walk(np.arange(len(self.windows)), range(len(self)))

    def epoch(self, number: int, start: int = 0) -> Iterator[SeqBatch]:
        """The batches of an epoch, from batch `start` on; the same ones for the same seed and number.

        Args:
            number: number of the epoch, 0 or more.
            start: number of the first batch, to go on in the middle of an epoch.
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
        """Batches of windows in an order (W,): the chunks with the given numbers, one after the other."""
        on_device = tensor(order, self.device)
        for number in batches:
            chunk = slice(int(number) * self.batch_size, (int(number) + 1) * self.batch_size)
            yield self.make_batch(on_device[chunk], order[chunk])

    def gather(self, index: np.ndarray | Tensor) -> SeqBatch:
        """The batch of the windows with the numbers `index` (B,), in this order; an index on the host makes no wait for the device."""
        host = index.cpu().numpy() if isinstance(index, Tensor) else np.asarray(index)
        return self.make_batch(torch.as_tensor(index, device=self.device), host)

    def make_batch(self, index: Tensor, host: np.ndarray) -> SeqBatch:
        """The batch of the windows with the numbers `index` (B,), which the host has too."""
        width = int(self.lengths[host].max())
        if self.fixed:
            width = half_above(width, self.windows.max_len)
        start = self.start[index]  # (B,)
        lengths = self.stop[index] - start  # (B,)
        time = torch.arange(width + 1, device=self.device)  # (L + 1,)
        place = (start[:, None] + time).clamp_(max=len(self.items) - 1)  # (B, L + 1)
        read = self.items.index_select(0, place.view(-1)).view_as(place).long()  # (B, L + 1), inputs and one more
        padding = time[:-1] >= lengths[:, None]  # (B, L)
        early = self.first[index] - start  # (B,)
        return SeqBatch(
            items=read[:, :-1].masked_fill(padding, PAD),
            lengths=lengths,
            targets=self.pick_targets(read, padding, early, lengths),
            users=self.users[index],
            times=None if self.times is None else self.times[place[:, :-1]].masked_fill(padding, 0.0),
            positions=self.find_positions(early, lengths, host, width),
        )

    def pick_targets(self, read: Tensor, padding: Tensor, early: Tensor, lengths: Tensor) -> Tensor | None:
        """Take the targets from the items read; in each row the first `early` positions (B,) have none."""
        if self.targets == "none":
            return None
        if self.targets == "last":
            return read.gather(1, lengths[:, None])[:, 0]  # (B,)
        time = torch.arange(padding.shape[1], device=self.device)  # (L,)
        return read[:, 1:].masked_fill(padding | (time < early[:, None]), PAD)  # (B, L)

    def find_positions(self, early: Tensor, lengths: Tensor, host: np.ndarray, width: int) -> Tensor | None:
        """Find where the targets are in the flattened batch, without a look at them, and fill up with -1: (P,)."""
        if not self.fixed or self.targets != "all":
            return None
        number = int((self.windows.stop[host] - self.windows.first[host]).sum())
        ends = (lengths - early).cumsum(0)  # (B,), targets up to the end of each row
        count = torch.arange(step_above(number), device=self.device)  # (P,)
        row = torch.searchsorted(ends, count, right=True).clamp_(max=len(ends) - 1)  # (P,)
        return (row * width + (lengths - ends)[row] + count).masked_fill_(count >= number, -1)


def tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """Put an array on a device; on the CPU memory is shared, so a mapped file stays mapped."""
    return shared(array).to(device)
