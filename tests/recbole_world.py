"""Shared by the tests beside RecBole: the warnings of its own that pass, a small data set of its kind, and its calls."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from seqcl.data import markov, write
from seqcl.integrations.recbole_stack import RecBoleUnusable, check_stack

SOURCES = (
    "recbole",
    "ray",
    "pkg_resources",
    "hyperopt",
    "thop",
    "torch",
    "tensorboard",
    "scipy",
    "pandas",
    "importlib",
)
OWN_WARNINGS = [
    *(pytest.mark.filterwarnings(f"ignore:::{module}") for module in SOURCES),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]
"""Marks for a test that runs RecBole: what RecBole and what it brings warn of is not ours to mend."""
QUIET = {"show_progress": False, "state": "critical", "epochs": 1, "train_batch_size": 64, "metric_decimal_place": 10}


def recbole_or_skip() -> None:
    """Skip a module of tests where RecBole is not installed or cannot run."""
    pytest.importorskip("recbole")
    try:
        check_stack()
    except RecBoleUnusable as error:
        pytest.skip(str(error), allow_module_level=True)


def shop(folder: Path, *, users: int = 60, items: int = 20, length: int = 9) -> Path:
    """A Markov chain as atomic files `shop/shop.inter` and `.item` in a folder, which is RecBole's data_path."""
    table = pd.DataFrame({"kind": [f"k{item % 5}" for item in range(items)]}, index=range(items))
    log = replace(
        markov(users=users, items=items, length=length, branching=2, seed=1).interactions, item_features=table
    )
    write(log, folder / "shop" / "shop.inter")
    return folder


def settings(folder: Path, **values) -> dict:
    """A RecBole configuration over `shop`, its files in the folder."""
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "kind"]}
    paths = {"data_path": str(folder), "checkpoint_dir": str(folder / "saved"), "load_col": columns}
    return {**QUIET, **paths, "encoder.dim": 8, "MAX_ITEM_LIST_LENGTH": 6, **values}


def prepared(model, folder: Path, **values):
    """RecBole's documented way up to the loaders: (config, train, valid, test)."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import init_seed

    config = Config(model=model, dataset=values.pop("dataset", "shop"), config_dict=settings(folder, **values))
    init_seed(config["seed"], config["reproducibility"])
    return config, *data_preparation(config, create_dataset(config))


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """RecBole writes logs where it runs, does not close them, and reads the words of the command line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["test"])
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield tmp_path
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers, root.level = handlers, level
