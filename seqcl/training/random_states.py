"""Random states of a process, taken and put back."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqcl import processes


def random_states(device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Take every random state of this process: of torch on the CPU and on `device`, of numpy and of Python.

    The first value is for the tensors of a checkpoint, the second for its JSON.
    """
    legacy: dict[str, Any] = dict(np.random.get_state(legacy=False))
    version, words, gauss = random.getstate()
    tensors = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
        "python": torch.tensor(words),
    }
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    numbers = {
        "numpy": [int(legacy["state"]["pos"]), int(legacy["has_gauss"]), float(legacy["gauss"])],
        "python": [version, gauss],
        "own": processes.Counts.draws,
    }
    return tensors, numbers


def set_random_states(tensors: Mapping[str, Tensor], numbers: Mapping[str, Any], device: torch.device) -> None:
    """Put back the states that `random_states` took."""
    torch.set_rng_state(tensors["torch"])
    processes.Counts.draws = numbers.get("own", 0)  # of a checkpoint of a version that had one process alone: none
    position, has_gauss, gauss = numbers["numpy"]
    np.random.set_state(("MT19937", tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, gauss))
    version, gauss = numbers["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), gauss))
    if device.type == "cuda" and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"], device)


@contextmanager
def kept_random_states() -> Iterator[None]:
    """Inside, seed as you like; afterwards torch, on every device in use, numpy and Python are where they were."""
    tensors, numbers = random_states(torch.device("cpu"))
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        set_random_states(tensors, numbers, torch.device("cpu"))
        if devices:
            torch.cuda.set_rng_state_all(devices)
