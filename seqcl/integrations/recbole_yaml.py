"""RecBole's YAML keys that concern data and evaluation, as our options: `--recbole-config file.yaml`. RecBole is not needed for it.

What a file does not say is as in RecBole for sequential models: repeats stay candidates, rows of 50 items, one top 10.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from seqcl.data.datasets import DATASETS
from seqcl.errors import UserError, unknown

Values = dict[str, Any]
"""Our options by their dotted names."""
Kind = TypeVar("Kind")

WANTED = {str: "text", int: "a whole number", bool: "true or false", dict: "names with values, such as {order: TO}"}
"""What a value of a type is called."""

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
    "require_pow": "the losses of the recipes have no such penalty",
    "loss_decimal_place": "losses are not rounded",
    "enable_amp": "--precision bf16",
    "enable_scaler": "--precision bf16, which needs no scaling",
    "transform": "views and masks are the recipe's",
    "shuffle": "training rows are always shuffled",
    "hidden_size": "--encoder.dim",
    "embedding_size": "--encoder.dim",
    "n_layers": "--encoder.layers",
    "n_heads": "--encoder.heads",
    "hidden_dropout_prob": "--encoder.dropout",
    "checkpoint_dir": "--runs",
    "use_gpu": "--device",
    "gpu_id": "--device",
    "worker": "batches are made by the process that trains",
    "nproc": "a run is one process",
    "state": "there are no levels of what is printed",
    "show_progress": "the line of progress is always shown; seqcl.train(progress=False) leaves it out",
    "reproducibility": "--seed; torch's deterministic algorithms are not switched on",
    "config_file": "give the file itself, as --recbole-config FILE",
    "config_files": "give the file itself, as --recbole-config FILE",
    "save_dataset": "prepared data are kept by themselves",
    "dataset_save_path": "prepared data are kept by themselves",
    "save_dataloaders": "loaders are made anew in every run",
    "dataloaders_save_path": "loaders are made anew in every run",
    "log_wandb": "figures are written into the run's folder",
    "wandb_project": "figures are written into the run's folder",
    "metric_decimal_place": "metrics are not rounded",
    "tail_ratio": "there is no TailPercentage",
    "val_interval": "drop these rows from the file",
    "unload_col": "say which columns are loaded, in load_col",
    "unused_col": "say which columns are loaded, in load_col",
    "additional_feat_suffix": "of RecBole's files the .inter, .user and .item are read",
    "numerical_features": "the models that read columns of users and items name them themselves",
    "discretization": "numbers of features are standardised by what training knows",
    "normalize_field": "numbers of features are standardised by what training knows",
    "preload_weight": "vectors of items and users are learned",
    "alias_of_user_id": "no other column holds ids of users",
    "alias_of_item_id": "no other column holds ids of items",
    "alias_of_entity_id": "there are no knowledge graphs",
    "alias_of_relation_id": "there are no knowledge graphs",
    "entity_kg_num_interval": "there are no knowledge graphs",
    "relation_kg_num_interval": "there are no knowledge graphs",
    "seq_len": "--data.max_len is the only length",
    "benchmark_filename": "the split is made here, and checked for leaks",
    "group_by": "part of eval_args",
    "threshold": "ratings are not read; drop rows from the file",
}
"""Keys that are not taken, with what there is instead, or why; one without a value says nothing, and is let pass."""


def options(path: str | Path) -> Values:
    """What a file of RecBole's says of data and evaluation, as our options.

    Raises:
        UserError: a file that cannot be read, or a key or value that there is nothing here for, with the reason.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: no text, or 2020-13-45, which is no date
        raise UserError(f"--recbole-config {path}: {error}") from None
    if not isinstance(values, dict | None):
        raise UserError(f"--recbole-config {path}: the file must hold `key: value` lines")
    try:
        return values_of({str(key): value for key, value in (values or {}).items()}, path.parent)
    except UserError as error:
        raise UserError(f"--recbole-config {path}: {error}") from None


def values_of(given: Mapping[str, Any], folder: Path) -> Values:
    """Our options for a mapping of RecBole's keys; its paths are relative to the current folder, or else to `folder`."""
    for key in given:
        if key not in TAKEN and key not in ELSEWHERE:
            raise unknown("key for data or evaluation", key, [*TAKEN, *ELSEWHERE])
    given = {key: value for key, value in given.items() if value is not None}
    found: Values = {"eval.exclude_seen": False, "data.max_len": 50, "eval.ks": [10], "train.monitor": "mrr@10"}
    for key, value in given.items():
        if key in ELSEWHERE:
            raise UserError(f"{key} is not taken from RecBole's file: {ELSEWHERE[key]}")
        found |= TAKEN[key](key, value)
    return found | dataset(given, folder) | k_core(given)


def expect(key: str, value: Any, kind: type[Kind], *, least: int = 0) -> Kind:
    """The value, if it is of this type; text is not empty, a number not below `least`.

    Raises:
        UserError: it is not.
    """
    small = isinstance(value, int) and value < least and kind is int
    if type(value) is not kind or value in ("", {}) or small:
        bound = f", at least {least}" if kind is int else ""
        raise UserError(f"{key} {value!r}: expected {WANTED[kind]}{bound}")
    return value


def several(key: str, value: Any, kind: type[Kind], *, least: int = 0) -> list[Kind]:
    """The values of a list of at least one, or the one that stands there alone."""
    found = [expect(key, each, kind, least=least) for each in (value if isinstance(value, list) else [value])]
    if not found:
        raise UserError(f"{key} []: expected at least one")
    return found


def dataset(given: Mapping[str, Any], folder: Path) -> Values:
    """The folder data_path/dataset, which is how RecBole finds a data set, or one that is known by name."""
    if "dataset" not in given:
        if "data_path" in given:
            raise UserError("data_path: the name of the data set is missing (dataset)")
        return {}
    name = given["dataset"]
    below = Path(given.get("data_path", "dataset")) / name
    for place in (below, folder / below):
        if place.is_dir():
            return {"dataset": str(place)}
    if "data_path" in given:
        known = f"; without data_path, {name} is known by name" if name in DATASETS else ""
        raise UserError(f"data_path: there is no folder {below}, here or beside the file{known}")
    return {"dataset": name}


def k_core(given: Mapping[str, Any]) -> Values:
    """The least interactions of users and of items; RecBole drops until none is left below them, as we do."""
    users, items = (least_of(f"{kind}_inter_num_interval", given) for kind in ("user", "item"))
    if items > users:
        raise UserError(
            f"item_inter_num_interval [{items},inf) with user_inter_num_interval [{users},inf): "
            "users need at least as many interactions as items here"
        )
    # The core has its least of both: the same log under one name, and one fingerprint.
    return {"data.k_core": items, "data.min_length": users if users > items else 1}


def least_of(key: str, given: Mapping[str, Any]) -> int:
    """The lower end of an interval without an upper one."""
    if key not in given:
        return 0
    found = re.fullmatch(r"\s*([\[(])\s*(\d+)\s*,\s*inf\s*[\])]\s*", str(given[key]))
    if found is None:
        raise UserError(f"{key} {given[key]}: only a least number can be asked for, such as [5,inf)")
    return int(found[2]) + (found[1] == "(")


def same(option: str, kind: type, *, least: int = 0) -> Callable[[str, Any], Values]:
    """A key whose value an option takes as it is."""
    return lambda key, value: {option: expect(key, value, kind, least=least)}


def nothing(key: str, value: Any) -> Values:
    """A key that is read elsewhere, together with others."""
    return {}


def idle(kind: type) -> Callable[[str, Any], Values]:
    """A key that makes no difference here, whatever its value."""

    def check(key: str, value: Any) -> Values:
        expect(key, value, kind)
        return {}

    return check


def only(expected: Any, reason: str) -> Callable[[str, Any], Values]:
    """A key that can have one value."""

    def check(key: str, value: Any) -> Values:
        if value != expected:
            raise UserError(f"{key} {value!r}: {reason}")
        return {}

    return check


def load_col(key: str, value: Any) -> Values:
    """Columns of the log are found by their fields; those of users and items are named by the models that read them."""
    for kind in expect(key, value, dict):
        if kind in ("user", "item"):
            raise UserError(
                f"load_col {kind}: the models that read columns of {kind}s name them themselves, such as "
                "--features.items genre (TwoTower) or --mutual.attributes genre (S3Rec)"
            )
        if kind != "inter":
            raise UserError(f"load_col {kind}: of RecBole's files the .inter, .user and .item are read")
        several("load_col inter", value[kind], str)
    return {}


def eval_args(key: str, value: Any) -> Values:
    """Leave-one-out in the order of time, among all items or among drawn ones."""
    found: Values = {}
    for name, setting in expect(key, value, dict).items():
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
            found |= mode(setting)
        else:
            raise unknown("key of eval_args", str(name), ("split", "order", "group_by", "mode"))
    return found


def mode(value: Any) -> Values:
    """Candidates: all, or drawn ones; validation and test are ranked alike here."""
    parts = expect("eval_args mode", value, dict) if isinstance(value, dict) else {"valid": value, "test": value}
    for part in parts:
        if part not in ("valid", "test"):
            raise unknown("part in eval_args mode", str(part), ("valid", "test"))
    kinds = {expect("eval_args mode", kind, str) for kind in parts.values()}
    if len(kinds) > 1:
        raise UserError(f"eval_args mode {value}: validation and test are ranked among the same candidates")
    (kind,) = kinds
    found = re.fullmatch(r"(uni|pop)([1-9]\d*)", kind)
    if found:
        names = {"uni": "uniform", "pop": "popularity"}
        return {"eval.candidates": names[found[1]], "eval.sampled": int(found[2])}
    if kind != "full":
        raise UserError(f"eval_args mode {kind!r}: there are full, uniN and popN, such as uni100")
    return {"eval.candidates": "full"}


def topk(key: str, value: Any) -> Values:
    """One k or several."""
    return {"eval.ks": several(key, value, int, least=1)}


def metrics(key: str, value: Any) -> Values:
    """Every run reports all metrics that there are, so that only unknown ones matter."""
    for name in several(key, value, str):
        metric(name)
    return {}


def metric(name: str) -> str:
    """The name that a metric of RecBole's has here."""
    if name.lower() not in METRICS:
        raise unknown("metric", name, ("Recall", "Hit", "NDCG", "MRR", "MAP", "Precision", "ItemCoverage", "GiniIndex", "AveragePopularity"))  # fmt: skip
    return METRICS[name.lower()]


def valid_metric(key: str, value: Any) -> Values:
    """What chooses the best epoch."""
    name, at, k = expect(key, value, str).partition("@")
    return {"train.monitor": f"{metric(name)}{at}{k}"}


def duplicates(key: str, value: Any) -> Values:
    """Which of a user's repeats of an item stays."""
    if value not in ("first", "last"):
        raise UserError(f"rm_dup_inter {value!r}: there are first and last")
    return {"data.duplicates": value}


MADE = (
    "RATING_FIELD",
    "LABEL_FIELD",
    "NEG_PREFIX",
    "ITEM_LIST_LENGTH_FIELD",
    "LIST_SUFFIX",
    "POSITION_FIELD",
    "HEAD_ENTITY_ID_FIELD",
    "TAIL_ENTITY_ID_FIELD",
    "RELATION_ID_FIELD",
    "ENTITY_ID_FIELD",
)
"""Names of columns that are not read, or that RecBole makes for itself."""

TAKEN: dict[str, Callable[[str, Any], Values]] = {
    "model": same("model", str),
    "dataset": idle(str),  # read with data_path
    "data_path": idle(str),
    "seed": same("seed", int),
    "USER_ID_FIELD": same("data.user", str),
    "ITEM_ID_FIELD": same("data.item", str),
    "TIME_FIELD": same("data.time", str),
    **dict.fromkeys(MADE, idle(str)),
    "encoding": only("utf-8", "files are read as utf-8"),
    "field_separator": only("\t", "the columns of an atomic file are separated by tabs"),
    "seq_separator": only(" ", "the words of a cell are separated by blanks"),
    "load_col": load_col,
    "filter_inter_by_user_or_item": idle(bool),  # by rows of .user and .item, which load_col does not load here
    "normalize_all": idle(bool),  # ratings and times: the first are not read, of the second the order counts
    "kg_reverse_r": only(False, "there are no knowledge graphs"),
    "rm_dup_inter": duplicates,
    "user_inter_num_interval": nothing,
    "item_inter_num_interval": nothing,
    "MAX_ITEM_LIST_LENGTH": same("data.max_len", int, least=1),
    "eval_args": eval_args,
    "repeatable": only(
        True, "RecBole ranks sequential models with repeats; say --eval.exclude_seen true to leave seen items out"
    ),
    "topk": topk,
    "metrics": metrics,
    "valid_metric": valid_metric,
    "valid_metric_bigger": only(True, "the greater metric is the better one"),
    "eval_batch_size": same("eval.batch_size", int, least=1),
}
"""The keys that are taken, and the options that each becomes."""
