"""Fixtures and settings of every test."""

from __future__ import annotations

import os

import pytest
import torch

# Two workers with two threads each would wait for one another; processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_anomaly_mode():
    """Importing RecBole switches autograd's anomaly mode on for the whole process."""
    torch.autograd.set_detect_anomaly(False)
