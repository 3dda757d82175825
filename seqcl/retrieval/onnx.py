"""A query encoder as an ONNX graph, for runtimes without Python or torch."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqcl.encoders import TwoTower
from seqcl.errors import UserError
from seqcl.objectives import NextItem
from seqcl.types import PAD, SeqBatch

TOLERANCE = 1e-4
"""Largest difference between a query of the graph and of torch, over the largest absolute value of a query, or 1."""


class QueryGraph(nn.Module):
    """From rows of one width and their lengths to queries, nothing being known of the users.

    Args:
        encoder: gives the states.
        rank: turns states into what item vectors are multiplied with.
    """

    def __init__(self, encoder: Any, rank: NextItem) -> None:
        super().__init__()
        self.towers = encoder if isinstance(encoder, TwoTower) and encoder.user_features is not None else None
        self.encoder, self.rank = encoder, rank
        if self.towers is not None:
            nobody = SeqBatch(torch.ones(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))
            self.register_buffer("known", self.towers.known_of(nobody))  # (1, F * K)

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Rows items (B, L), PAD behind their lengths (B,), as queries: (B, D)."""
        batch = SeqBatch(items, lengths)
        if self.towers is None:
            return self.rank.queries(self.encoder.last(batch))
        states = self.towers.history.last(self.towers.readable(batch))  # (B, D)
        return self.rank.queries(self.towers.join(states, self.known.expand(len(items), -1)))  # type: ignore[operator]


@torch.no_grad()
def write_onnx(path: Path, encoder: nn.Module, rank: NextItem, *, max_len: int, num_items: int) -> None:
    """Write the graph: inputs `items` (B, max_len) int64, PAD behind the newest, and `lengths` (B,) int64; output `queries` (B, D).

    The file is read back and compared with torch on rows of every length.

    Raises:
        UserError: onnx, onnxscript or onnxruntime is not installed, or the graph's queries are others.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401, torch's exporter wants it
    except ImportError as error:
        raise UserError(f"an ONNX graph needs {error.name}: pip install 'seqcl[onnx]'") from None
    graph = QueryGraph(encoder, rank).eval()
    rows = torch.Generator().manual_seed(0)
    lengths = torch.arange(max_len) + 1  # (B,)
    items = torch.randint(1, num_items + 1, (max_len, max_len), generator=rows)
    items = items.masked_fill(torch.arange(max_len) >= lengths[:, None], PAD)  # (B, L)
    batch = torch.export.Dim("rows")
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, about its own functions
            torch.onnx.export(
                graph,
                (items, lengths),
                path,
                input_names=["items", "lengths"],
                output_names=["queries"],
                dynamic_shapes={"items": {0: batch}, "lengths": {0: batch}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        quiet.setLevel(level)
    found = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(
        None, {"items": items.numpy(), "lengths": lengths.numpy()}
    )[0]
    wanted = graph(items, lengths).numpy()
    apart = float(np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max()))
    if not apart <= TOLERANCE:
        raise UserError(
            f"{path}: the queries of the ONNX graph differ from torch's by {apart:.1e}, more than {TOLERANCE}"
        )
