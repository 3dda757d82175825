"""Changes to RecBole's own modules, each for one reason; torch is left alone."""

from __future__ import annotations

from typing import Any

import torch
from recbole import quick_start
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.evaluator import Collector
from recbole.quick_start import quick_start as quick_start_module
from recbole.trainer import trainer
from recbole.utils import get_model, init_logger, init_seed

from seqcl.integrations.recbole.recommender import RecBoleRecommender
from seqcl.integrations.recbole.settings import check_keys


class TrustingTorch:
    """Stands for `torch` in RecBole's trainer; its `load` reads whole objects, as it did before torch 2.6.

    RecBole's checkpoints hold its configuration object, which torch refuses by default. Reading such a file runs code that it
    holds: open only files that you made.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def load(self, *arguments: Any, **options: Any) -> Any:
        """`torch.load`, of a file that is trusted."""
        return torch.load(*arguments, **{"weights_only": False, **options})


def load_data_and_model(model_file: Any) -> tuple[Any, ...]:
    """Load a checkpoint that RecBole saved: configuration, model, data set and three loaders. Open only files that you made.

    RecBole's own imports torch within the function, where nothing can be put in its place.
    """
    checkpoint = TrustingTorch().load(model_file)
    config = checkpoint["config"]
    config.compatibility_settings()  # names of numpy that RecBole's metrics use, which only a new Config puts back
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    dataset = create_dataset(config)
    loaders = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(config["model"])(config, loaders[0].dataset).to(config["device"])
    model.load_state_dict(checkpoint["state_dict"])
    model.load_other_parameter(checkpoint.get("other_parameter"))
    return config, model, dataset, *loaders


def mend_loading() -> None:
    """Let RecBole load its own checkpoints: `evaluate`, `resume_checkpoint` and `load_data_and_model`."""
    trainer.torch = TrustingTorch()
    for module in (quick_start, quick_start_module):
        module.load_data_and_model = load_data_and_model


def mend_metrics() -> None:
    """Let RecBole compute the metrics that count items in training: AveragePopularity and TailPercentage.

    RecBole's collector moves all that it has collected to the CPU, counts of items too, which are no tensor.
    """
    before = Collector.get_data_struct

    def get_data_struct(self: Any) -> Any:
        collected = self.data_struct._data_dict
        others = {key: value for key, value in collected.items() if not isinstance(value, torch.Tensor)}
        for key in others:
            del collected[key]
        found = before(self)
        collected.update(others)
        found._data_dict.update(others)
        return found

    Collector.get_data_struct = get_data_struct


def mend_config() -> None:
    """Give our models their defaults, and check their keys.

    RecBole takes the defaults of a model from a file inside its own package; ours has no room there.
    """
    before = Config._load_internal_config_dict

    def load_internal_config_dict(self: Any, model: str, model_class: type, dataset: str) -> None:
        before(self, model, model_class, dataset)
        if issubclass(model_class, RecBoleRecommender):
            check_keys(model_class.recipe, self)
            # RecBole would put a row with a drawn item beside every row; a recipe draws its negatives itself.
            self.internal_config_dict["train_neg_sample_args"] = None

    Config._load_internal_config_dict = load_internal_config_dict
