"""A training row of another user with the same next item: the supervised view of DuoRec."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from seqcl.augment.views import View
from seqcl.errors import UserError
from seqcl.mapped import let_go, shared
from seqcl.shapes import fixed
from seqcl.types import SeqBatch, Windows


class SameTarget(View):
    """Take a row of another user with the same next item, each equally likely; the row itself where there is none.

    Source: DuoRec, arXiv 2110.05730. Differs from the paper: a position in the middle of a training row counts too,
    because then every kind of training window works; all rows of the same user are left out, where the paper leaves out the
    row alone. Both are the same where no user has an item twice. The index is built once, in O(P log P) for P targets.
    The users of the result are those whose rows were taken.
    """

    keeps_users = False

    packed: Tensor  # (T,) int32, the items of all users, one user behind the other
    keys: Tensor  # (P,) int64, target * U + user of every training position, ascending
    stops: Tensor  # (P,) int64, end of the row of each position in `packed`
    offsets: Tensor  # (U + 1,) int64, begin of each user in `packed`
    times: Tensor  # (T,) float64 seconds, empty where the data has none

    def __init__(self) -> None:
        super().__init__()
        self.num_users = self.max_len = 0
        for name in ("packed", "keys", "stops", "offsets", "times"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int64), persistent=False)

    def prepare(self, train: Windows) -> None:
        sizes = train.stop - train.first  # (W,)
        window = np.repeat(np.arange(len(train)), sizes)  # (P,)
        stops = train.first[window] + 1 + np.arange(len(window)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        keys = train.items[stops].astype(np.int64) * train.num_users
        keys += train.users[window]
        del window
        order = np.argsort(keys, kind="stable")
        self.num_users, self.max_len = train.num_users, train.max_len
        self.keys, self.stops = (torch.from_numpy(part[order]) for part in (keys, stops))
        self.packed, self.offsets = shared(train.items), shared(train.offsets)
        self.times = shared(np.empty(0) if train.times is None else train.times)
        let_go(train.items)

    def forward(self, batch: SeqBatch, generator: Generator) -> SeqBatch:
        if not self.num_users:
            raise UserError("SameTarget: call prepare(train) before the first batch")
        targets = batch.last_targets()  # (B,)
        if targets is None or batch.users is None:
            raise UserError("SameTarget: needs a batch with targets and users")
        low = targets * self.num_users
        first, last = (torch.searchsorted(self.keys, key) for key in (low, low + self.num_users))  # (B,)
        mine, theirs = (torch.searchsorted(self.keys, key) for key in (low + batch.users, low + batch.users + 1))
        own = theirs - mine  # (B,), positions of the same user
        others = last - first - own  # (B,)
        draw = torch.rand(targets.shape, generator=generator, device=targets.device, dtype=torch.float64)
        place = first + (draw * others).long()
        place = torch.where(place >= mine, place + own, place).clamp(max=len(self.keys) - 1)
        alone = others == 0
        begins = torch.maximum(
            self.offsets[self.keys[place] % self.num_users], self.stops[place] - self.max_len
        )  # (B,)
        lengths = torch.where(alone, batch.lengths, self.stops[place] - begins)
        width = self.max_len if fixed() else int(lengths.max())
        time = torch.arange(width, device=targets.device)  # (L',)
        where = (begins[:, None] + time).clamp(max=len(self.packed) - 1)  # (B, L')
        padding = time >= lengths[:, None]

        def read(packed: Tensor, own: Tensor) -> Tensor:
            own = F.pad(own, (0, max(0, width - own.shape[1])))[:, :width]
            return torch.where(alone[:, None], own, packed[where].to(own.dtype)).masked_fill(padding, 0)

        times = None if batch.times is None or not len(self.times) else read(self.times, batch.times)
        users = torch.where(alone, batch.users, self.keys[place] % self.num_users)  # whose rows these are
        return SeqBatch(read(self.packed, batch.items), lengths, users=users, times=times)
