"""What every test starts from."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _no_anomaly_mode():
    """Importing RecBole switches autograd's anomaly mode on for the whole process."""
    torch.autograd.set_detect_anomaly(False)
