"""RecBole's YAML keys that concern data and evaluation, as our options: `--recbole-config file.yaml`. RecBole is not needed for it.

What a file does not say is as in RecBole for sequential models: repeats stay candidates, rows of 50 items, one top 10.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from seqcl.data.datasets import DATASETS
from seqcl.errors import UserError, unknown

Words = list[str]

METRICS = {
    "recall": "recall",
    "hit": "hr",
    "ndcg": "ndcg",
    "mrr": "mrr",
    "map": "map",
    "precision": "precision",
    "itemcoverage": "coverage",
    "averagepopularity": "popularity",
    "giniindex": "gini",
}
"""RecBole's metrics by the names they have here; every run reports all of them."""
ELSEWHERE = {
    "epochs": "--train.epochs",
    "train_batch_size": "--train.batch_size, which counts rows of the windows chosen (--data.windows), not prefixes",
    "learning_rate": "--train.lr",
    "learner": "AdamW is the only optimizer",
    "weight_decay": "--train.weight_decay",
    "stopping_step": "--train.patience",
    "eval_step": "--train.eval_every",
    "clip_grad_norm": "--train.clip",
    "train_neg_sample_args": "--next_item.loss and --next_item.negatives",
    "loss_type": "--next_item.loss",
    "hidden_size": "--encoder.dim",
    "embedding_size": "--encoder.dim",
    "n_layers": "--encoder.layers",
    "n_heads": "--encoder.heads",
    "hidden_dropout_prob": "--encoder.dropout",
    "checkpoint_dir": "--runs",
    "use_gpu": "--device",
    "gpu_id": "--device",
    "metric_decimal_place": "metrics are not rounded",
    "val_interval": "drop these rows from the file",
    "filter_inter_by_user_or_item": "users and items come from the interactions alone",
    "unload_col": "say which columns are loaded, in load_col",
    "benchmark_filename": "the split is made here, and checked for leaks",
    "group_by": "part of eval_args",
    "threshold": "ratings are not read; drop rows from the file",
    "normalize_all": "numbers of features are standardised by what training knows",
    "normalize_field": "numbers of features are standardised by what training knows",
}
"""Keys that are not taken, with what there is instead, or why."""


def options(path: str | Path) -> Words:
    """The words of a command line that say what a file of RecBole's says of data and evaluation.

    Raises:
        UserError: a file that cannot be read, or a key or value that there is nothing here for, with the reason.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--recbole-config {path}: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"--recbole-config {path}: the file must hold `key: value` lines")
    try:
        return words_of({str(key): value for key, value in values.items()}, path.parent)
    except UserError as error:
        raise UserError(f"--recbole-config {path}: {error}") from None


def words_of(values: Mapping[str, Any], folder: Path) -> Words:
    """The words for a mapping of RecBole's keys; its paths are relative to the current folder, or else to `folder`."""
    for key in values:
        if key not in TAKEN:
            if key in ELSEWHERE:
                raise UserError(f"{key} is not taken from RecBole's file: {ELSEWHERE[key]}")
            raise unknown("key for data or evaluation", key, [*TAKEN, *ELSEWHERE])
    words = ["--eval.exclude_seen", "false", "--data.max_len", "50", "--eval.ks", "[10]", "--train.monitor", "mrr@10"]
    for key, value in values.items():
        if value is not None:
            words += TAKEN[key](key, value)
    return words + dataset(values, folder) + k_core(values)


def dataset(values: Mapping[str, Any], folder: Path) -> Words:
    """The folder data_path/dataset, which is how RecBole finds a data set, or one that is known by name."""
    name = values.get("dataset")
    if name is None:
        if "data_path" in values:
            raise UserError("data_path: the name of the data set is missing (dataset)")
        return []
    below = Path(values.get("data_path") or "dataset") / str(name)
    for place in (below, folder / below):
        if place.is_dir():
            return ["--dataset", str(place)]
    if "data_path" in values and name not in DATASETS:
        raise UserError(f"data_path: there is no folder {below}, here or beside the file")
    return ["--dataset", str(name)]


def k_core(values: Mapping[str, Any]) -> Words:
    """The least interactions of users and of items; RecBole drops until none is left below them, as we do."""
    users, items = (least(f"{kind}_inter_num_interval", values) for kind in ("user", "item"))
    if items > users:
        raise UserError(
            f"item_inter_num_interval [{items},inf) with user_inter_num_interval [{users},inf): "
            "users need at least as many interactions as items here"
        )
    # The core has its least of both: the same log under one name, and one fingerprint.
    return ["--data.k_core", str(items), "--data.min_length", str(users if users > items else 1)]


def least(key: str, values: Mapping[str, Any]) -> int:
    """The lower end of an interval without an upper one."""
    text = values.get(key)
    if text is None:
        return 0
    found = re.fullmatch(r"\s*([\[(])\s*(\d+)\s*,\s*inf\s*[\])]\s*", str(text))
    if found is None:
        raise UserError(f"{key} {text}: only a least number can be asked for, such as [5,inf)")
    return int(found[2]) + (found[1] == "(")


def same(option: str) -> Callable[[str, Any], Words]:
    """A key whose value an option takes as it is."""
    return lambda key, value: [option, str(value)]


def nothing(key: str, value: Any) -> Words:
    """A key that is read elsewhere, together with others."""
    return []


def only(expected: Any, reason: str) -> Callable[[str, Any], Words]:
    """A key that can have one value."""

    def check(key: str, value: Any) -> Words:
        if value != expected:
            raise UserError(f"{key} {value!r}: {reason}")
        return []

    return check


def load_col(key: str, value: Any) -> Words:
    """Columns of the log are found by their fields; those of users and items are named by the models that read them."""
    for kind in value:
        if kind in ("user", "item"):
            raise UserError(
                f"load_col {kind}: the models that read columns of {kind}s name them themselves, such as "
                "--features.items genre (TwoTower) or --mutual.attributes genre (S3Rec)"
            )
        if kind != "inter":
            raise UserError(f"load_col {kind}: of RecBole's files the .inter, .user and .item are read")
    return []


def eval_args(key: str, value: Any) -> Words:
    """Leave-one-out in the order of time, among all items or among drawn ones."""
    words: Words = []
    for name, setting in value.items():
        if name == "split":
            if setting != {"LS": "valid_and_test"}:
                raise UserError(
                    f"eval_args split {setting}: of RecBole's splits there is {{'LS': 'valid_and_test'}}, which holds the same "
                    "items; --data.split temporal cuts at two moments, which none of RecBole's does"
                )
        elif name == "order":
            only("TO", "sequences are in the order of time")("eval_args order", setting)
        elif name == "group_by":
            only("user", "leave-one-out is by user")("eval_args group_by", setting)
        elif name == "mode":
            words += mode(setting)
        else:
            raise unknown("key of eval_args", str(name), ("split", "order", "group_by", "mode"))
    return words


def mode(value: Any) -> Words:
    """Candidates: all, or drawn ones; validation and test are ranked alike here."""
    kinds = set(value.values()) if isinstance(value, dict) else {value}
    if len(kinds) > 1:
        raise UserError(f"eval_args mode {value}: validation and test are ranked among the same candidates")
    kind = str(kinds.pop())
    found = re.fullmatch(r"(uni|pop)(\d+)", kind)
    if found:
        names = {"uni": "uniform", "pop": "popularity"}
        return ["--eval.candidates", names[found[1]], "--eval.sampled", found[2]]
    if kind != "full":
        raise UserError(f"eval_args mode {kind!r}: there are full, uniN and popN, such as uni100")
    return ["--eval.candidates", "full"]


def topk(key: str, value: Any) -> Words:
    """One k or several."""
    return ["--eval.ks", f"[{','.join(map(str, value if isinstance(value, list) else [value]))}]"]


def metrics(key: str, value: Any) -> Words:
    """Every run reports all metrics that there are, so that only unknown ones matter."""
    for name in [value] if isinstance(value, str) else value:
        metric(str(name))
    return []


def metric(name: str) -> str:
    """The name that a metric of RecBole's has here."""
    if name.lower() not in METRICS:
        raise unknown("metric", name, ("Recall", "Hit", "NDCG", "MRR", "MAP", "Precision", "ItemCoverage", "GiniIndex", "AveragePopularity"))  # fmt: skip
    return METRICS[name.lower()]


def valid_metric(key: str, value: Any) -> Words:
    """What chooses the best epoch."""
    name, at, k = str(value).partition("@")
    return ["--train.monitor", f"{metric(name)}{at}{k}"]


def duplicates(key: str, value: Any) -> Words:
    """Which of a user's repeats of an item stays."""
    if value not in ("first", "last"):
        raise UserError(f"rm_dup_inter {value!r}: there are first and last")
    return ["--data.duplicates", value]


TAKEN: dict[str, Callable[[str, Any], Words]] = {
    "model": same("--model"),
    "dataset": nothing,
    "data_path": nothing,
    "seed": same("--seed"),
    "USER_ID_FIELD": same("--data.user"),
    "ITEM_ID_FIELD": same("--data.item"),
    "TIME_FIELD": same("--data.time"),
    "field_separator": only("\t", "the columns of an atomic file are separated by tabs"),
    "seq_separator": only(" ", "the words of a cell are separated by blanks"),
    "load_col": load_col,
    "rm_dup_inter": duplicates,
    "user_inter_num_interval": nothing,
    "item_inter_num_interval": nothing,
    "MAX_ITEM_LIST_LENGTH": same("--data.max_len"),
    "eval_args": eval_args,
    "repeatable": only(
        True, "RecBole ranks sequential models with repeats; say --eval.exclude_seen true to leave seen items out"
    ),
    "topk": topk,
    "metrics": metrics,
    "valid_metric": valid_metric,
    "eval_batch_size": same("--eval.batch_size"),
}
"""The keys that are taken, and the words that each becomes."""
