"""BSARec: self-attention beside a Fourier filter over the whole row (Shin et al., AAAI 2024, arXiv 2312.10325)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqcl.encoders import sasrec
from seqcl.encoders.attention import join, split
from seqcl.encoders.base import TableEncoder
from seqcl.encoders.blocks import newest_by_block
from seqcl.encoders.dropout import Dropout
from seqcl.encoders.gate import gate_of
from seqcl.encoders.table import at_least_one
from seqcl.errors import UserError
from seqcl.types import PAD, SeqBatch

NORM_EPS = 1e-12
"""Added to the variance in every layer norm, as in the authors' code."""


class BSARec(TableEncoder):
    """Self-attention and a Fourier filter, each with its own dropout, residual and norm, mixed in every block (section 4).

    The filter reads a row both ways, so a row has one state, at its newest item. The state at t is that of the row's first
    t + 1 items alone. `--data.windows prefix`, as the paper trains, asks for one state a row; other windows cost as much
    as a row for every position. Padding stands in front, up to max_len. It takes part in the filter, has positions, and
    is no key of attention; a place of padding attends to every place, as in the authors' code.
    Differs from the paper: padding has a vector of zeros, and no row of padding alone is trained.

    Args:
        num_items: N, ids 1..N.
        max_len: longest row, in items, and the length to which all rows are padded.
        dim: width D of states and item embeddings.
        layers: number of blocks.
        heads: attention heads; they divide dim.
        dropout: share of embedding, attention, filter and feed-forward outputs dropped in training (paper 0.5).
        hidden: width of the feed-forward part as a multiple of dim.
        filtered: share alpha of the filter in a block; the rest is attention (paper 0.1 to 0.9).
        cutoff: number c of low frequencies in a row's spectrum: the constant one and c // 2 pairs (paper 1 to 9).
        attention_dropout: share of the attention weights dropped in training (paper 0.5).
        gate: channels for each unit of a gate that weighs the channels of each block's output (SENet, arXiv 1709.01507: 16); 0 for none.
        kernels: filters of several widths that the gate chooses between for each channel (SK, arXiv 1903.06586: 2); 1 for none.

    Raises:
        UserError: a size below 1, heads that do not divide dim, a share that is not from 0 to below 1, `filtered` is not from 0 to 1, or a row is longer than max_len.
    """

    def __init__(
        self,
        *,
        num_items: int,
        max_len: int,
        dim: int = 64,
        layers: int = 2,
        heads: int = 2,
        dropout: float = 0.3,
        hidden: int = 4,
        filtered: float = 0.7,
        cutoff: int = 5,
        attention_dropout: float = 0.0,
        gate: int = 0,
        kernels: int = 1,
    ) -> None:
        at_least_one(layers=layers, heads=heads, hidden=hidden, cutoff=cutoff)
        if dim % heads:
            raise UserError(f"encoder.heads={heads} does not divide encoder.dim={dim}")
        if not 0 <= filtered <= 1:
            raise UserError(f"encoder.filtered must be from 0 to 1, not {filtered}")
        super().__init__(num_items=num_items, max_len=max_len, dim=dim)
        if cutoff // 2 > max_len // 2:
            raise UserError(
                f"encoder.cutoff={cutoff}: rows of {max_len} items have {max_len // 2} pairs of frequencies at most"
            )
        self.place = nn.Parameter(torch.randn(max_len, dim) * 0.02)
        self.blocks = nn.ModuleList(
            Block(dim, heads, hidden * dim, dropout, FourierFilter(dim, max_len, cutoff), filtered, attention_dropout)
            for _ in range(layers)
        )
        self.embed_norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)
        for part in self.modules():
            if isinstance(part, nn.LayerNorm):
                part.eps = NORM_EPS
        gates = [gate_of(dim, gate, kernels) for _ in self.blocks]
        self.blocks = nn.ModuleList(
            block if one is None else Gated(block, one) for block, one in zip(self.blocks, gates, strict=True)
        )

    def forward(self, batch: SeqBatch) -> Tensor:
        """The state after every position, of the row up to it alone: (B, L, D)."""
        time = torch.arange(batch.items.shape[1], device=batch.items.device)
        row, place = (time < batch.lengths[:, None]).nonzero(as_tuple=True)  # (T,), (T,)
        states = self.last(SeqBatch(batch.items[row], place + 1))  # (T, D)
        found = states.new_zeros(*batch.items.shape, self.dim)
        return found.index_put((row, place), states)

    def last(self, batch: SeqBatch) -> Tensor:
        """States after the newest items: (B, D); the last block works for one place a row."""
        x, shut = self.embed(batch)
        for block in self.blocks[:-1]:
            x = block(x, shut)
        return self.blocks[-1](x, shut, newest=True)[:, 0]

    @property
    def depth(self) -> int:
        return len(self.blocks)

    def by_block(self, batch: SeqBatch, *, overlap: int) -> Tensor:
        """States after the newest items, block by block: (B, depth, D)."""
        return torch.cat(newest_by_block(self.blocks, *self.embed(batch), overlap), 1)

    def embed(self, batch: SeqBatch) -> tuple[Tensor, Tensor]:
        """Item embeddings with their places, (B, M, D), padded in front to M = max_len; and what attention adds to scores, (B, 1, M, M)."""
        self.check_length(batch)
        time = torch.arange(self.max_len, device=batch.items.device)
        place = time - (self.max_len - batch.lengths)[:, None]  # (B, M), negative at padding
        items = batch.items.gather(1, place.clamp(min=0)).masked_fill(place < 0, PAD)
        x = self.dropout(self.embed_norm(self.table(items) + self.place))
        seen = (items != PAD)[:, None] & (time <= time[:, None])  # (B, M, M)
        return x, torch.where(seen, 0.0, -1e4).to(x.dtype)[:, None]  # finite: a place of padding sees no item


class FourierFilter(nn.Module):
    """The low frequencies of a row as they are and the high ones times beta, which is learned for every channel (eq. 9).

    The low frequencies are a product with one matrix. It equals the Fourier transform and its inverse, and can be exported.
    """

    low: Tensor  # (M, M), from a row to its low frequencies

    def __init__(self, dim: int, length: int, cutoff: int) -> None:
        super().__init__()
        self.beta_root = nn.Parameter(torch.randn(dim))  # beta is its square, as in the authors' code
        spectrum = torch.fft.rfft(torch.eye(length), dim=0)  # (M // 2 + 1, M)
        spectrum[cutoff // 2 + 1 :] = 0
        self.register_buffer("low", torch.fft.irfft(spectrum, n=length, dim=0), persistent=False)

    def forward(self, x: Tensor, part: slice) -> Tensor:
        """From x (B, M, D) to some of its places: (B, Q, D)."""
        low = self.low[part] @ x
        return low + self.beta_root.square() * (x[:, part] - low)


class Block(sasrec.Block):
    """Attention and the filter over the same input, mixed; then feed-forward (arXiv 2312.10325, eq. 7 to 12)."""

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        dropout: float,
        filter: FourierFilter,
        filtered: float,
        attention_dropout: float,
    ) -> None:
        super().__init__(dim, heads, hidden, dropout, "post", "gelu", 0, attention_dropout)
        self.filter, self.filter_norm, self.filtered = filter, nn.LayerNorm(dim), filtered

    def forward(self, x: Tensor, shut: Tensor, newest: bool = False) -> Tensor:  # type: ignore[override]
        """From x (B, M, D) to the same shape, or to (B, 1, D) at the newest item of each row."""
        part = slice(-1, None) if newest else slice(None)
        own = x[:, part]  # (B, Q, D)
        smooth = self.filter_norm(own + self.dropout(self.filter(x, part)))
        read = self.attention_norm(own + self.dropout(self.attend(own, x, shut[:, :, part])))
        mixed = self.filtered * smooth + (1 - self.filtered) * read
        return self.feed_norm(mixed + self.feed(mixed))

    def attend(self, own: Tensor, x: Tensor, shut: Tensor) -> Tensor:
        """Attention of `own` (B, Q, D) to x (B, M, D): (B, Q, D)."""
        heads, rows = self.attention.heads, x.shape[0]  # an export takes len(x) for a constant
        query = split(self.attention.query(own).flatten(0, 1), (rows, own.shape[1]), heads)  # (B, H, Q, D / H)
        both = self.attention.key_value(x).flatten(0, 1).chunk(2, dim=-1)
        key, value = (split(one, (rows, x.shape[1]), heads) for one in both)  # (B, H, M, D / H)
        return self.attention.output(join(self.attention.attend(query, key, value, shut))).view_as(own)


class Gated(nn.Module):
    """A block, and a gate over what it gives; a place reads the items up to it, as attention does."""

    def __init__(self, block: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.block, self.gate = block, gate

    def forward(self, x: Tensor, shut: Tensor, newest: bool = False) -> Tensor:
        """From x (B, M, D) to the same shape, or to (B, 1, D) at the newest item of each row; the mean needs all places of the block."""
        x = self.gate(self.block(x, shut), shut[:, 0] == 0)
        return x[:, -1:] if newest else x
