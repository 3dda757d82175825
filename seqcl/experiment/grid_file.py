"""Read the file of a benchmark; every mistake in it is told with its line."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from seqcl.config.files import composed, settings_of
from seqcl.config.resolving import file_layers
from seqcl.config.settings import Setting, Settings
from seqcl.errors import UserError, brief, unknown
from seqcl.evaluation import metric_name, row_metric
from seqcl.experiment.grid import MANY, Entry, Grid

KEYS = ("data", "models", "seeds", "options", "budget", "baseline", "metric", "contrast")
CONTRAST = ("both", "as-is")
BUDGETS = ("epochs", "minutes", "trials")
EXAMPLES = {"data": "[Beauty]", "models": "[SASRec, CL4Rec, ../beauty-duorec.yaml]"}


def read_grid(path: Path) -> Grid:
    """Read the file of a benchmark; the configuration files that it names are relative to it.

    Raises:
        UserError: no such file, an unknown key, or a value that does not fit; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        root = composed(text)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start + 1} is not UTF-8 text; save the file as UTF-8") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: the file must hold `key: value` lines, such as models: [CL4Rec, SASRec]")
    return Reader(path, text).grid(root)


class Reader(NamedTuple):
    """Reads the nodes of one file."""

    path: Path
    text: str

    def grid(self, root: yaml.MappingNode) -> Grid:
        """The whole file."""
        nodes: dict[str, yaml.Node] = {}
        for key, node in root.value:
            if key.value not in KEYS:
                raise UserError(f"{self.at(key)}: {unknown('key', str(key.value), KEYS)}")
            if key.value in nodes:
                raise UserError(f"{self.at(key)}: {key.value} stands a second time")
            nodes[key.value] = node
        for key in ("data", "models"):
            if key not in nodes:
                raise UserError(f"{self.path}: needs the key {key}, such as {key}: {EXAMPLES[key]}")
        models = self.entries(nodes["models"], "models", self.model)
        baseline = self.value(nodes, "baseline", models[0].name)
        names = [one.name for one in models]
        if baseline not in names:
            raise UserError(f"{self.at(nodes['baseline'])}: {unknown('model in baseline', str(baseline), names)}")
        contrast = self.value(nodes, "contrast", CONTRAST[0])
        if contrast not in CONTRAST:
            raise UserError(f"{self.at(nodes['contrast'])}: {unknown('value of contrast', str(contrast), CONTRAST)}")
        budget, trials = self.budget(nodes.get("budget"))
        return Grid(
            models=models,
            data=self.entries(nodes["data"], "data", self.data),
            options=self.options(nodes.get("options")),
            seeds=self.seeds(nodes),
            budget=budget,
            trials=trials,
            baseline=baseline,
            metric=self.metric(nodes),
            contrast=contrast,
        )

    def at(self, node: yaml.Node) -> str:
        """The place of a node."""
        return f"{self.path}:{node.start_mark.line + 1}"

    def of(self, node: yaml.Node) -> Any:
        """The value of a node."""
        try:
            return yaml.SafeLoader(self.text).construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError) as error:
            raise UserError(f"{self.at(node)}: {brief(getattr(error, 'problem', None) or error)}") from None

    def value(self, nodes: Mapping[str, yaml.Node], key: str, default: Any) -> Any:
        """The value of a key."""
        return self.of(nodes[key]) if key in nodes else default

    def settings(self, node: yaml.MappingNode) -> Settings:
        """The options of a node, each with its line."""
        try:
            return settings_of(node, self.text, self.path)
        except UserError as error:
            raise UserError(f"{self.path}:{error}") from None

    def entries(self, node: yaml.Node, key: str, read: Callable[[yaml.Node], Entry]) -> list[Entry]:
        """The entries of a list, each with a name of its own."""
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found = [read(one) for one in nodes]
        if not found:
            raise UserError(f"{self.at(node)}: {key} is empty; write {key}: {EXAMPLES[key]}")
        for place, entry in enumerate(found):
            if entry.name in [other.name for other in found[:place]]:
                raise UserError(f"{entry.place}: {key} has {entry.name} twice: give one another name, with name: ...")
        return found

    def model(self, node: yaml.Node) -> Entry:
        """A model: its name, a configuration file, or either with options."""
        place = self.at(node)
        settings = self.settings(node) if isinstance(node, yaml.MappingNode) else self.named(node, "model", place)
        name, file = (settings.pop(key, None) for key in ("name", "config"))
        if file is None and "model" not in settings:
            raise UserError(f"{place}: a model needs model: NAME or config: FILE beside its options")
        if file is None:
            return Entry(str((name or settings["model"]).value), place, settings)
        try:
            files = file_layers(self.path.parent / Path(str(file.value)).expanduser())
        except UserError as error:
            raise UserError(f"{file.place}: {error}") from None
        told = name or settings.get("model")
        return Entry(str(told.value) if told else Path(str(file.value)).stem, place, settings, files)

    def named(self, node: yaml.Node, key: str, place: str) -> Settings:
        """A model or a data set by its name alone; a model that ends in .yaml is a file."""
        value = self.of(node)
        if not isinstance(value, str) or not value:
            raise UserError(f"{place}: expected a name, not {brief(repr(value), 60)}")
        is_file = key == "model" and value.endswith((".yaml", ".yml"))
        return {"config" if is_file else key: Setting(value, place)}

    def data(self, node: yaml.Node) -> Entry:
        """A data set: its name or path, also with options."""
        place = self.at(node)
        settings = self.settings(node) if isinstance(node, yaml.MappingNode) else self.named(node, "dataset", place)
        name = settings.pop("name", None)
        if "dataset" not in settings:
            raise UserError(f"{place}: a data set needs dataset: NAME beside its options")
        return Entry(str(name.value) if name else Path(str(settings["dataset"].value)).stem, place, settings)

    def options(self, node: yaml.Node | None) -> list[Entry]:
        """The sets of options with which every model is run: none, one, or a list of them."""
        if node is None:
            return [Entry("", str(self.path), {})]
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found = []
        for one in nodes:
            if not isinstance(one, yaml.MappingNode):
                raise UserError(f"{self.at(one)}: options must be `key: value` lines, or a list of such")
            settings = self.settings(one)
            told = ", ".join(f"{key} {setting.value}" for key, setting in settings.items())
            found.append(Entry(told if len(nodes) > 1 else "", self.at(one), settings))
        return found or [Entry("", self.at(node), {})]

    def seeds(self, nodes: Mapping[str, yaml.Node]) -> list[int]:
        """The seeds: a number of them, from 0 on, or a list."""
        found = self.value(nodes, "seeds", 3)
        seeds = list(range(found)) if type(found) is int and 0 < found <= 1000 else found
        if not isinstance(seeds, list) or not seeds or any(type(one) is not int for one in seeds):
            raise UserError(f"{self.at(nodes['seeds'])}: seeds must be a number of seeds, or a list such as [0, 1, 2]")
        if bad := [one for one in seeds if not 0 <= one < 2**32]:
            raise UserError(f"{self.at(nodes['seeds'])}: seed {bad[0]} must be from 0 to {2**32 - 1}")
        return list(dict.fromkeys(seeds))

    def budget(self, node: yaml.Node | None) -> tuple[Settings, int]:
        """Read the budget of every row: options for so many epochs or minutes and no early end, or a number of trials."""
        if node is None:
            return {}, 0
        given = self.of(node)
        if not isinstance(given, dict) or len(given) != 1:
            raise UserError(f"{self.at(node)}: budget must be {{epochs: N}}, {{minutes: N}} or {{trials: N}}")
        ((kind, size),) = given.items()
        if kind not in BUDGETS:
            raise UserError(f"{self.at(node)}: {unknown('budget', str(kind), BUDGETS)}")
        if isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size < math.inf:
            raise UserError(f"{self.at(node)}: budget {kind} must be a number above 0, not {brief(repr(size), 60)}")
        if kind == "trials":
            if size != int(size):
                raise UserError(f"{self.at(node)}: budget trials must be a whole number, not {size}")
            return {}, int(size)
        told = {"epochs": size, "max_minutes": 0.0} if kind == "epochs" else {"epochs": MANY, "max_minutes": size}
        return {f"train.{key}": Setting(value, self.at(node)) for key, value in {**told, "patience": 0}.items()}, 0

    def metric(self, nodes: Mapping[str, yaml.Node]) -> str:
        """The metric that rows are compared by."""
        try:
            value = self.value(nodes, "metric", "ndcg@10")
            if not isinstance(value, str):
                raise UserError(f"metric must be one name, such as ndcg@10, not {brief(repr(value), 60)}")
            found = metric_name(value)
            row_metric(found, np.ones(1, np.int64))
        except UserError as error:
            raise UserError(f"{self.at(nodes['metric'])}: {error}") from None
        return found
