"""No code runs from a file: a string that would write a file stands in every option of every door, and no file is there."""

from __future__ import annotations

import copy
import itertools
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import seqcl
from seqcl import config, plugins
from seqcl.data.readers import read
from seqcl.errors import UserError
from seqcl.integrations.recbole_yaml import options
from seqcl.retrieval.bundle import Bundle
from tests.recbole_world import OWN_WARNINGS, recbole_or_skip

recbole_or_skip()
pytestmark = OWN_WARNINGS

VALUES = {
    "model": "SASRec",
    "encoder": {"name": "recbole:SASRec", "dim": 8, "n_layers": 1},
    "data": {"windows": "prefix", "max_len": 5},
    "train": {"epochs": 1, "batch_size": 512},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> seqcl.Run:
    return seqcl.train("markov", progress=False, runs=str(tmp_path_factory.mktemp("runs")), **VALUES)


@pytest.fixture(scope="module")
def bundle(run: seqcl.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run.export(tmp_path_factory.mktemp("bundles") / "out", index="flat")


@pytest.fixture
def traps(tmp_path: Path) -> Iterator[Iterator[str]]:
    """Strings that write a file when they are evaluated, formatted or loaded as a YAML tag; at the end no file is there."""
    mark = tmp_path / "sprung"
    strings = [
        f"__import__('pathlib').Path({str(mark)!r}).touch()",
        f"open({str(mark)!r}, 'w')",
        f"!!python/object/apply:os.system ['touch {mark}']",
    ]
    yield itertools.cycle(strings)
    assert not mark.exists()


def planted(tree: Any, trap: Iterator[str]) -> Iterator[Any]:
    """Copies of nested values, each with the next trap in place of one leaf, or as a key beside the others."""
    places = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(places):
        made = copy.copy(tree)
        made[key] = next(trap)
        yield made
        for inner in planted(value, trap):
            made = copy.copy(tree)
            made[key] = inner
            yield made
    if isinstance(tree, dict):
        yield {**tree, next(trap): next(trap)}


def answer(work: Callable[[], Any]) -> None:
    """Do it: a result or a UserError, and nothing else."""
    try:
        work()
    except UserError as error:
        assert "\n" not in str(error)


def test_a_configuration_file(run: seqcl.Run, traps: Iterator[str], tmp_path: Path) -> None:
    file, train = tmp_path / "file.yaml", run.split.train
    for made in planted(run.experiment.values(), traps):
        file.write_text(yaml.safe_dump(made))
        answer(lambda: config.resolve(["--config", str(file)]).build(train))
    for key in run.experiment.recipe.parts["encoder"].options:  # as YAML reads it without quotes
        for _ in range(3):
            file.write_text(f"model: SASRec\nencoder:\n  name: recbole:SASRec\n  {key}: {next(traps)}\n")
            answer(lambda: config.resolve(["--config", str(file)]).build(train))


def test_every_option_of_the_encoder_in_python(run: seqcl.Run, traps: Iterator[str]) -> None:
    kind, own = run.experiment.recipe.parts["encoder"].component, run.experiment.recipe.parts["encoder"].options
    for key in (*own, "metrics", "data_path", "eval_args", next(traps)):
        for _ in range(3):
            for value in (next(traps), [next(traps)], {"a": next(traps)}):
                with pytest.raises(UserError):
                    kind(num_items=9, max_len=5, **{**own, key: value})


def test_a_run_folder(run: seqcl.Run, traps: Iterator[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    best = folder / "checkpoints" / "best.safetensors"
    content = (run.folder / "checkpoints" / "best.safetensors").read_bytes()
    best.write_bytes(content)
    values, needs = run.experiment.values(), json.loads((run.folder / "plugins.json").read_text())

    def tried(file: Path, made: Iterator[bytes]) -> None:
        kept = file.read_bytes() if file.exists() else None
        for text in made:
            file.write_bytes(text)
            answer(lambda: seqcl.load(folder))
        if kept is not None:
            file.write_bytes(kept)

    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])

    def checkpoint(metadata: dict[str, str]) -> bytes:
        text = json.dumps({**header, "__metadata__": metadata}).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + size :]

    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    shared = {key: value for key, value in values.items() if key not in ("train", "eval", "next_item")}
    rest = {key: value for key, value in values.items() if key not in shared}
    plants = (yaml.safe_dump(made | rest).encode() for made in planted(shared, traps))
    tried(folder / "config.yaml", plants)
    tried(folder / "plugins.json", (json.dumps(made).encode() for made in planted(needs, traps)))
    (folder / "plugins.json").write_text(json.dumps(needs))
    tried(best, (checkpoint(made) for made in planted(header["__metadata__"], traps)))
    state = json.loads(header["__metadata__"]["state"])
    old = {"format": "seqcl-checkpoint-1"}  # without hashes
    tried(best, (checkpoint({**old, "state": json.dumps(made)}) for made in planted(state, traps)))


def test_a_bundle(bundle: Path, traps: Iterator[str]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    try:
        for made in planted(manifest, traps):
            (bundle / "manifest.json").write_text(json.dumps(made))
            answer(lambda: Bundle(bundle).recommend([1, 2], k=3))
    finally:
        (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_a_file_of_recboles_and_the_head_of_an_atomic_file(traps: Iterator[str], tmp_path: Path) -> None:
    given = {"dataset": "x", "topk": [5], "eval_args": {"mode": "full", "split": {"LS": "valid_and_test"}}, "seed": 1}
    file, log = tmp_path / "recbole.yaml", tmp_path / "x.inter"
    for made in [made for _ in range(3) for made in planted(given, traps)]:
        file.write_text(yaml.safe_dump(made))
        answer(lambda: options(file))
        file.write_text("\n".join(f"{key}: {value}" for key, value in made.items()))
        answer(lambda: options(file))
    for _ in range(3):
        trap = next(traps)
        for head in (
            f"user_id:{trap}\titem_id:token",
            f"user_id:token\titem_id:token\t{trap}:float",
            f"{trap}\t{trap}",
        ):
            log.write_text(f"{head}\n1\t2\t3\n")
            answer(lambda: read(log))


def test_a_foreign_encoder_is_made_only_if_the_user_names_it(
    run: seqcl.Run, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "named", set())
    asked: list[Callable[..., Any]] = [
        lambda **given: seqcl.load(run.folder, **given),
        lambda **given: Bundle(bundle, **given),
    ]
    for ask in asked:
        with pytest.raises(UserError, match=r"'recbole:SASRec'.*--plugin recbole .*plugins=\['recbole'\]"):
            ask()
    with pytest.raises(UserError, match="--plugin recbole"):
        config.of_run(run.folder)  # as --resume does
    for name in ("recbole", "seqcl.integrations.recbole_plugin"):
        for ask in asked:
            monkeypatch.setattr(plugins, "named", set())
            assert len(ask(plugins=[name]).recommend(items=[1, 2], k=3)) == 3
    monkeypatch.setattr(plugins, "named", set())
    assert config.of_run(run.folder, ["--plugin", "recbole"]).recipe.chosen["encoder"] == "recbole:SASRec"


def test_what_a_run_folder_forgets_to_say_it_needs_is_asked_for_too(
    run: seqcl.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "named", set())
    (tmp_path / "config.yaml").write_text((run.folder / "config.yaml").read_text())
    with pytest.raises(UserError, match="--plugin recbole"):
        seqcl.load(tmp_path)


def test_a_stopped_run_says_the_words_that_bring_its_encoder_back(run: seqcl.Run) -> None:
    assert plugins.words_for(run.experiment.needs()) == " --plugin recbole"
    assert (
        plugins.words_for([("model", "Mine", "my_parts.py"), ("view", "Here", "__main__")]) == " --plugin my_parts.py"
    )
    assert plugins.words_for([]) == ""
