"""Write a query encoder as an ONNX graph, for runtimes without Python or torch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqcl.encoders import Scoring, TwoTower
from seqcl.errors import UserError
from seqcl.types import PAD, SeqBatch

TOLERANCE = 1e-4
"""Largest difference allowed between queries of the graph and of torch, over their largest absolute value."""


class QueryGraph(nn.Module):
    """Turns rows of one width and their lengths into queries; it knows nothing of the users.

    Args:
        encoder: gives the states.
        scoring: turns states into queries.
    """

    def __init__(self, encoder: Any, scoring: Scoring) -> None:
        super().__init__()
        self.towers = encoder if isinstance(encoder, TwoTower) and encoder.user_features is not None else None
        self.encoder, self.scoring = encoder, scoring
        if self.towers is not None:
            nobody = SeqBatch(torch.ones(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))
            self.register_buffer("known", self.towers.known_of(nobody))  # (1, F * K)

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Turn items (B, L), PAD behind their lengths (B,), into queries (B, D)."""
        batch = SeqBatch(items, lengths)
        if self.towers is None:
            return self.scoring.queries(self.encoder.last(batch))
        states = self.towers.history.last(batch)  # (B, D)
        return self.scoring.queries(self.towers.join(states, self.known.expand(items.shape[0], -1)))  # type: ignore[operator]


def check_onnx() -> None:
    """Refuse to begin without the packages that an ONNX graph needs.

    Raises:
        UserError: one is not installed, or torch is too old.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise UserError(f"an ONNX graph needs {package}: pip install 'seqcl[onnx]'")
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        raise UserError(f"an ONNX graph needs torch 2.6 or newer, and {torch.__version__} is installed")


@torch.no_grad()
def write_onnx(path: Path, encoder: nn.Module, scoring: Scoring, *, max_len: int, num_items: int) -> None:
    """Write the graph, read it back, and compare it with torch on rows of every length.

    Its inputs are `items` (B, max_len) int64, PAD behind the newest, and `lengths` (B,) int64; its output is `queries`
    (B, D).

    Raises:
        UserError: torch cannot write this encoder, or the queries of the graph differ from torch's.
    """
    import onnxruntime

    graph = QueryGraph(encoder, scoring).eval()
    rows = torch.Generator().manual_seed(0)
    # Take more rows than positions: an export takes two equal sizes for the same one.
    lengths = 1 + torch.arange(max_len + 2) % max_len  # (B,)
    items = torch.randint(1, num_items + 1, (len(lengths), max_len), generator=rows)
    items = items.masked_fill(torch.arange(max_len) >= lengths[:, None], PAD)  # (B, L)
    free = {0: torch.export.Dim("rows")}
    names: dict[str, Any] = {"input_names": ["items", "lengths"], "output_names": ["queries"]}
    try:
        with quiet():
            program = torch.export.export(graph, (items, lengths), dynamic_shapes={"items": free, "lengths": free})
            torch.onnx.export(program, (), path, **names, dynamo=True, external_data=False, verbose=False)
    except Exception as error:  # the exporter raises many kinds, all about operations that it does not know
        reason = str(error).strip().partition("\n")[0]
        if "Constraints violated (rows)" in reason:
            reason = "it fixes the number of rows; take sizes from x.shape, not from len(x)"
        raise UserError(f"{type(encoder).__name__} cannot be written as ONNX: {reason}") from error
    found = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(
        None, {"items": items.numpy(), "lengths": lengths.numpy()}
    )[0]
    wanted = graph(items, lengths).numpy()
    apart = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if not apart <= TOLERANCE:
        raise UserError(
            f"{path}: the queries of the ONNX graph differ from torch's by {apart:.1e}, more than {TOLERANCE}"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter for a while: it warns about its own functions and about packages that it does not need."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
