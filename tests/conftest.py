"""Fixtures and settings of every test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

# Two workers with two threads each would wait for one another; processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_pictures() -> Iterator[None]:
    """Drawing its curves takes half of the time of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqcl.report.plot_curves", lambda *_, **__: None)
        yield


@pytest.fixture(scope="module")
def pictures() -> Iterator[None]:
    """Runs draw their curves, as they do outside tests."""
    from seqcl.report.curves import plot_curves

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seqcl.report.plot_curves", plot_curves)
        yield


@pytest.fixture(autouse=True)
def _no_anomaly_mode():
    """Importing RecBole switches autograd's anomaly mode on for the whole process."""
    torch.autograd.set_detect_anomaly(False)
