"""Every log and every stored file, mutated, ends in a result or in a UserError; `python tests/fuzz.py` looks longer."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import Target, check, logs, mutated, stored


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> list[Target]:
    return stored(tmp_path_factory.mktemp("stored"))


@pytest.fixture(scope="module")
def readable(tmp_path_factory: pytest.TempPathFactory) -> list[Target]:
    return logs(tmp_path_factory.mktemp("logs"))


@settings(max_examples=500, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_mutated_log_ends_in_a_result_or_a_user_error(readable: list[Target], data: st.DataObject) -> None:
    def draw(below: int) -> int:
        return data.draw(st.integers(0, below - 1))

    target = readable[draw(len(readable))]
    check(target, mutated(target.file.read_bytes(), draw))


@settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_mutated_file_ends_in_a_result_or_a_user_error(targets: list[Target], data: st.DataObject) -> None:
    def draw(below: int) -> int:
        return data.draw(st.integers(0, below - 1))

    target = targets[draw(len(targets))]
    check(target, mutated(target.file.read_bytes(), draw))


def test_every_file_of_a_run_and_a_bundle_is_a_target_and_opens_as_it_is(targets: list[Target]) -> None:
    names = {target.name for target in targets}
    assert {"run/config.yaml", "run/metrics.json", "run/history.csv", "run/ranks.parquet", "run/plugins.json"} <= names
    assert {"bundle/manifest.json", "bundle/index.faiss", "bundle/item_ids.npy", "bundle/query.safetensors"} <= names
    assert {"run/checkpoints/last.safetensors", "run/checkpoints/best.safetensors", "old/last"} <= names
    for way in {target.open for target in targets}:
        way()
