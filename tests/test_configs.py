"""Every file in configs/ resolves to a model and its options, and says what it is; none is trained here."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from seqcl.config import Experiment, resolve
from seqcl.data import DATASETS
from seqcl.models import MODELS, Recommender

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "configs").glob("*.yaml"), *(ROOT / "configs" / "papers").glob("*.yaml")])


@cache
def resolved(file: Path) -> Experiment:
    return resolve(["--config", str(file)])


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_configuration_resolves_and_its_head_says_paper_command_protocol_and_result(file):
    config = resolved(file)
    assert config.options.dataset in DATASETS
    head = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert ("arXiv" in head[0] or "doi 10." in head[0]) and f"python run.py --config {file.relative_to(ROOT)}" in head[
        -3
    ]
    assert config.options.dataset in head[-2] and "leave-one-out" in head[-2] and head[-1].startswith("# Measured: ")


def test_every_trained_model_has_a_configuration():
    have = {MODELS[resolved(file).options.model] for file in FILES}
    assert have >= {kind for kind in MODELS.values() if issubclass(kind, Recommender)}
