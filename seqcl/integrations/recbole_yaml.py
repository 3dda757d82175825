"""RecBole's YAML keys for data and evaluation, as our options: `--recbole-config file.yaml`. It does not need RecBole.

A key that is missing has RecBole's default for sequential models: repeats stay candidates, rows of 50 items, one top 10.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from seqcl.config.files import composed
from seqcl.data.datasets import DATASETS
from seqcl.errors import UserError, brief, unknown
from seqcl.integrations.recbole_keys import ELSEWHERE, MADE, METRICS, all_refused

Values = dict[str, Any]
"""Our options by their dotted names."""
Kind = TypeVar("Kind")

WANTED = {str: "text", int: "a whole number", bool: "true or false", dict: "names with values, such as {order: TO}"}
"""The name of a type in messages."""


def options(path: str | Path) -> Values:
    """Read a file of RecBole's as our options for data and evaluation.

    Raises:
        UserError: a file that cannot be read, or a key or value that has no counterpart here, with the reason.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        composed(text)
        values = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: no text, or 2020-13-45, which is no date
        raise UserError(f"--recbole-config {path}: {brief(error)}") from None
    if not isinstance(values, dict | None):
        raise UserError(f"--recbole-config {path}: the file must hold `key: value` lines")
    try:
        return values_of({str(key): value for key, value in (values or {}).items()}, path.parent)
    except UserError as error:
        raise UserError(f"--recbole-config {path}: {error}") from None


def values_of(given: Mapping[str, Any], folder: Path) -> Values:
    """Translate a mapping of RecBole's keys; its paths are relative to the current folder, or else to `folder`."""
    found: Values = {"eval.exclude_seen": False, "data.max_len": 50, "eval.ks": [10], "train.monitor": "mrr@10"}
    refused: dict[str, UserError] = {}
    for key, value in given.items():
        try:
            found |= option_of(key, value)
        except UserError as error:
            refused[key] = error
    if refused:
        reasons = {key: f"--{key}" if "." in key else "unknown" for key in refused if key not in TAKEN} | ELSEWHERE
        raise all_refused({key: (error, reasons.get(key, str(error))) for key, error in refused.items()})
    given = {key: value for key, value in given.items() if value is not None}
    if "split" not in given.get("eval_args", ["split"]) and "benchmark_filename" not in given:
        raise UserError("eval_args: without split RecBole cuts by RS [0.8, 0.1, 0.1]; add split: {LS: valid_and_test}")
    return found | dataset(given, folder) | k_core(given)


def option_of(key: str, value: Any) -> Values:
    """Translate one key; without a value it says nothing.

    Raises:
        UserError: an unknown key, one that is not taken, or a value that does not fit.
    """
    if "." in key:
        raise UserError(f"{key} is no key of RecBole: give --{key}, or put it in a file for --config")
    if key not in TAKEN and key not in ELSEWHERE:
        raise unknown("key for data or evaluation", key, [*TAKEN, *ELSEWHERE])
    if value is None:
        return {}
    if key in ELSEWHERE:
        raise UserError(f"{key} is not taken from RecBole's file: {ELSEWHERE[key]}")
    return TAKEN[key](key, value)


def expect(key: str, value: Any, kind: type[Kind], *, least: int = 0) -> Kind:
    """Return the value if it has this type; text must not be empty, a number not below `least`.

    Raises:
        UserError: it is not.
    """
    small = isinstance(value, int) and value < least and kind is int
    if type(value) is not kind or value in ("", {}) or small:
        bound = f", at least {least}" if kind is int else ""
        raise UserError(f"{key} {value!r}: expected {WANTED[kind]}{bound}")
    return value


def several(key: str, value: Any, kind: type[Kind], *, least: int = 0) -> list[Kind]:
    """Read a list of at least one value, or one value alone."""
    found = [expect(key, each, kind, least=least) for each in (value if isinstance(value, list) else [value])]
    if not found:
        raise UserError(f"{key} []: expected at least one")
    return found


def dataset(given: Mapping[str, Any], folder: Path) -> Values:
    """Find the folder data_path/dataset, as RecBole does, or take a data set that is known by name."""
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
    """Read the smallest number of interactions of users and of items; like RecBole, we drop until none is below it."""
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
    """Hand the value of a key to an option as it is."""
    return lambda key, value: {option: expect(key, value, kind, least=least)}


def nothing(key: str, value: Any) -> Values:
    """Take a key that another function reads, together with others."""
    return {}


def idle(kind: type) -> Callable[[str, Any], Values]:
    """Accept a key that makes no difference here."""

    def check(key: str, value: Any) -> Values:
        expect(key, value, kind)
        return {}

    return check


def only(expected: Any, reason: str) -> Callable[[str, Any], Values]:
    """Accept a key with one value alone."""

    def check(key: str, value: Any) -> Values:
        if value != expected:
            raise UserError(f"{key} {value!r}: {reason}")
        return {}

    return check


def load_col(key: str, value: Any) -> Values:
    """Check the columns of the log, which are found by their fields; models name those of users and items themselves."""
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
    """Read the split, leave-one-out in the order of time, and the candidates: all items or drawn ones."""
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
    """Read the candidates, all or drawn ones; validation and test have the same here."""
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
    """Read one k or several."""
    return {"eval.ks": several(key, value, int, least=1)}


def metrics(key: str, value: Any) -> Values:
    """Refuse unknown metrics; every run reports all that there are."""
    for name in several(key, value, str):
        metric(name)
    return {}


def metric(name: str) -> str:
    """Translate the name of a metric."""
    if name.lower() not in METRICS:
        raise unknown("metric", name, ("Recall", "Hit", "NDCG", "MRR", "MAP", "Precision", "ItemCoverage", "GiniIndex", "AveragePopularity"))  # fmt: skip
    return METRICS[name.lower()]


def valid_metric(key: str, value: Any) -> Values:
    """Read the metric that chooses the best epoch."""
    name, at, k = expect(key, value, str).partition("@")
    return {"train.monitor": f"{metric(name)}{at}{k}"}


def benchmark(key: str, value: Any) -> Values:
    """Read the split that lies in files: NAME.train.inter, NAME.valid.inter and NAME.test.inter."""
    only(["train", "valid", "test"], "the parts of a split in files have these names")(key, value)
    return {"data.split": "given"}


def duplicates(key: str, value: Any) -> Values:
    """Read the policy for a user's repeats of an item."""
    if value not in ("first", "last"):
        raise UserError(f"rm_dup_inter {value!r}: there are first and last")
    return {"data.duplicates": value}


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
    "benchmark_filename": benchmark,
    "repeatable": only(
        True, "RecBole ranks sequential models with repeats; say --eval.exclude_seen true to leave seen items out"
    ),
    "topk": topk,
    "metrics": metrics,
    "valid_metric": valid_metric,
    "valid_metric_bigger": only(True, "the greater metric is the better one"),
    "eval_batch_size": same("eval.batch_size", int, least=1),
}
"""The keys that are taken, each with the function that makes options of it."""
