"""Parts from outside the package: the page's file through every command, and all that is refused on the way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

import seqcl
from seqcl import config, objectives, plugins, registry
from seqcl.augment import View
from seqcl.cli.main import main
from seqcl.encoders import GRU, SASRec
from seqcl.errors import UserError
from seqcl.models import Contrastive, Recommender
from seqcl.objectives import MoCo
from seqcl.testing import check_view
from tests import processes

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
WORDS = [
    *("--model", "FadingRec", "--dataset", "markov", "--eval.exclude_seen", "false", "--encoder.dim", "16"),
    *("--objective.margin", "0.05", "--train.batch_size", "256", "--train.lr", "0.01", "--train.monitor", "found@10"),
]


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder outside the package with the page's file in it."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "my_parts.py").write_text(CODE[0], encoding="utf-8")
    return folder


def seqcl_there(folder, *words):
    """Run a command in a process of its own, in the folder."""
    return processes.run(processes.command, [str(word) for word in words], cwd=Path(folder))


@pytest.fixture(scope="module")
def run(outside):
    """A run of the page's recipe, killed in training and gone on with."""
    words = ["train", "--plugin", "my_parts.py", *WORDS, "--train.epochs", "6", "--runs", "runs"]
    process = processes.start(processes.command, words, cwd=outside)
    processes.kill_when(process, lambda: list(outside.glob("runs/*/checkpoints/best.safetensors")))
    folder = next(outside.glob("runs/*"))
    assert not (folder / "metrics.json").exists()
    refused = seqcl_there(outside, "train", "--resume", folder)
    assert refused.returncode == 2 and "needs the model 'FadingRec'" in refused.stderr
    done = seqcl_there(outside, "train", "--plugin", "my_parts.py", "--resume", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_with_parts_of_ones_own_learns_and_reports_ones_own_metric(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert (
        0 < metrics["test"]["found@10"] <= 1
        and metrics["slices"]["target_popularity"]["head"]["metrics"]["found@10"] >= 0
    )
    assert metrics["test"]["ndcg@10"] > 3 * metrics["baselines"]["Popularity"]["test"]["ndcg@10"]
    kept = yaml.safe_load((run / "config.yaml").read_text())
    assert kept["next_item"]["loss"] == "hinge" and kept["objective"] | {"weight": 0} == {
        "name": "Near",
        "weight": 0,
        "margin": 0.05,
    }
    needs = {(one["kind"], one["name"]) for one in json.loads((run / "plugins.json").read_text())}
    assert needs == {
        ("model", "FadingRec"),
        ("encoder", "Fading"),
        ("objective", "Near"),
        ("view", "Newest"),
        ("loss", "hinge"),
        ("metric", "found"),
    }


def test_help_has_the_options_of_ones_own_parts(outside):
    done = seqcl_there(outside, "train", "--plugin", "my_parts.py", "--model", "FadingRec", "--help")
    assert done.returncode == 0
    for text in (
        "--encoder.fade",
        "part of the sum that stays",
        "--objective.margin",
        "views of the newest items",
        "hinge",
    ):
        assert text in done.stdout


@pytest.mark.parametrize("by", ["--plugin", "PYTHONPATH module", "YAML"])
def test_ones_own_parts_mix_with_ours_however_they_are_named(outside, by):
    words = ["--encoder", "Fading", "--next_item.loss", "hinge", "--print_config"]
    if by == "--plugin":
        done = seqcl_there(outside, "train", "--plugin", outside / "my_parts.py", *words)
    elif by == "YAML":
        (outside / "sub").mkdir(exist_ok=True)
        (outside / "sub" / "mine.yaml").write_text("plugins: [../my_parts.py]\nmodel: CL4Rec\n")
        done = seqcl_there(outside, "train", "--config", "sub/mine.yaml", *words)
    else:
        told = {**os.environ, "PYTHONPATH": f"{ROOT}:{outside}"}
        command = [sys.executable, "-m", "seqcl", "train", "--plugin", "my_parts", *words]
        done = subprocess.run(command, cwd="/", env=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)
    assert (
        found["encoder"]["name"] == "Fading"
        and found["encoder"]["fade"] == 0.7
        and found["next_item"]["loss"] == "hinge"
    )


def test_evaluate_recommend_and_export_take_the_plugin_and_refuse_to_guess_it(outside, run):
    bundle = outside / "bundle"
    asked = {
        "evaluate": ["evaluate", run],
        "recommend": ["recommend", run, "--items", "1,2,3", "--k", "3"],
        "export": ["export", run, bundle, "--index", "flat"],
    }
    said = {}
    for name, words in asked.items():
        refused = seqcl_there(outside, *words)
        assert refused.returncode == 2 and "Nothing is imported because a run folder says so" in refused.stderr
        assert "--plugin" in refused.stderr and "my_parts.py" in refused.stderr
        done = seqcl_there(outside, *words, "--plugin", "my_parts.py")
        assert done.returncode == 0, done.stderr
        said[name] = done.stdout
    kept = json.loads((run / "metrics.json").read_text())["test"]
    assert json.loads(said["evaluate"])["metrics"] == pytest.approx(kept)
    words = ["recommend", bundle, "--items", "1,2,3", "--k", "3"]
    refused = seqcl_there(outside, *words)
    assert refused.returncode == 2 and "Fading" in refused.stderr and "--plugin" in refused.stderr
    done = seqcl_there(outside, *words, "--plugin", "my_parts.py")
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [
        line.split("\t")[0] for line in said["recommend"].splitlines()
    ]


def test_a_run_with_parts_of_ones_own_teaches_with_the_plugin_alone(outside, run):
    words = ["distill", run, "--encoder.dim", "16", "--train.epochs", "1", "--runs", "students"]
    refused = seqcl_there(outside, *words)
    assert refused.returncode == 2 and "needs the model 'FadingRec'" in refused.stderr
    done = seqcl_there(outside, *words, "--plugin", "my_parts.py")
    assert done.returncode == 0, done.stderr


def test_nothing_is_imported_because_a_run_folder_says_so(outside, run, tmp_path):
    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    needs = [{"kind": "encoder", "name": "Nobodys", "source": str(trap)}]
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "plugins.json").write_text(json.dumps(needs))
    (folder / "config.yaml").write_text(f"plugins: [{trap}]\nmodel: SASRec\nencoder: {{name: Nobodys}}\n")
    for words in (["evaluate", folder], ["train", "--resume", folder], ["export", folder, tmp_path / "b"]):
        done = seqcl_there(tmp_path, *words)
        assert done.returncode == 2 and "Nobodys" in done.stderr, done.stderr
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("nowhere.py", None, "nowhere.py: no such file"),
        ("broken.py", "1 / 0\n", r"broken.py: it cannot be imported: ZeroDivisionError.*broken.py:1"),
        ("taken.py", "import seqcl\nseqcl.register('encoder', object, name='GRU')\n", "must be a class derived from"),
        (
            "same.py",
            "import seqcl\nfrom seqcl.encoders import GRU\n@seqcl.register('encoder', name='SASRec')\nclass Mine(GRU): ...\n",
            "the encoder name 'SASRec' is taken, it is seqcl's own",
        ),
        (
            "kind.py",
            "import seqcl\nseqcl.register('encodr', object)\n",
            "unknown kind of part 'encodr': did you mean encoder",
        ),
    ],
)
def test_a_plugin_that_fails_says_where_and_registers_nothing(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        plugins.load(str(tmp_path / name))
    assert name.removesuffix(".py") not in sys.modules


def test_a_module_that_does_not_exist_is_named():
    with pytest.raises(UserError, match="plugin no_such_module: it cannot be imported: ModuleNotFoundError"):
        plugins.load("no_such_module")


@pytest.fixture
def parts(outside, monkeypatch):
    """The page's file as a module of this process, its names taken back afterwards."""
    monkeypatch.syspath_prepend(str(outside))
    before = {kind: dict(table.others) for kind, table in registry.TABLES.items()}
    import my_parts

    for kind, names in {
        "encoder": ["Fading"],
        "view": ["Newest"],
        "objective": ["Near"],
        "loss": ["hinge"],
        "metric": ["found"],
        "model": ["FadingRec"],
    }.items():
        for name in names:
            registry.register(kind, getattr(my_parts, name))
    yield my_parts
    for kind, table in registry.TABLES.items():
        table.others.clear()
        table.others.update(before[kind])


def test_a_class_or_a_part_goes_wherever_a_name_goes(parts, tmp_path):
    values = {"data": {"windows": "last"}, "train": {"epochs": 1}, "runs": str(tmp_path), "progress": False}
    run = seqcl.train("markov", encoder=parts.Fading, objective=seqcl.part(parts.Near, weight=0.2), **values)
    assert run.experiment.flat["objective.weight"] == 0.2 and run.experiment.flat["encoder.name"] == "Fading"
    assert seqcl.load(run.folder).metrics["test"] == run.metrics["test"]


def test_a_class_that_nobody_registered_is_registered_on_the_way(tmp_path):
    from seqcl.models import Contrastive
    from seqcl.objectives import MoCo, TwoViews

    class Mine(Contrastive):
        """A recipe of my own."""

        objective = seqcl.part(TwoViews, temperature=0.3)

    try:
        found = config.experiment({"model": Mine, "objective": seqcl.part(MoCo, queue=64), "dataset": "markov"})
        assert found.recipe.model is Mine and found.flat["objective.queue"] == 64
        assert registry.TABLES["model"].source_of("Mine") == __name__
        assert list(found.recipe.needs()) == [("model", "Mine", __name__)]
        plain = config.experiment({"model": Mine, "objective": seqcl.part(TwoViews), "dataset": "markov"})
        assert plain.flat["objective.temperature"] == 0.3  # the recipe's own default stays
    finally:
        registry.TABLES["model"].others.pop("Mine", None)
    with pytest.raises(UserError, match="option train: a part can stand for encoder, objective, views"):
        config.experiment({"train": seqcl.part(MoCo)})
    with pytest.raises(UserError, match="unknown option of MoCo 'queu': did you mean queue"):
        seqcl.part(MoCo, queu=3)


def test_our_checks_pass_for_the_pages_parts(parts):
    scope: dict = {}
    exec(next(code for code in CODE if "seqcl.testing" in code), scope)
    scope["test_my_parts"]()


def test_an_installed_plugin_that_fails_is_named_and_left_out(monkeypatch, caplog):
    class Point:
        name, value, module, dist = "mine", "no_such_package.parts", "no_such_package.parts", None

        def load(self):
            raise ImportError("no_such_package is not here")

    monkeypatch.setattr(plugins, "entry_points", lambda group: [Point()] if group == "seqcl.plugins" else [])
    plugins.load_installed.cache_clear()
    try:
        config.resolve([])
        assert "the plugin mine of no_such_package.parts is left out" in caplog.text
    finally:
        plugins.load_installed.cache_clear()


def test_recbole_is_an_ordinary_plugin():
    plugins.load_installed()
    assert registry.TABLES["encoder"].families["recbole:"].__module__ == "seqcl.integrations.recbole_plugin"
    assert main(["train", "--encoder", "reckbole:NARM"]) == 2


@pytest.fixture
def tables(monkeypatch):
    """The tables of parts, as they were afterwards."""
    for table in registry.TABLES.values():
        monkeypatch.setattr(table, "others", dict(table.others))
        monkeypatch.setattr(table, "sources", dict(table.sources))


def test_what_a_recipe_declares_is_registered_with_it(tables):
    class Own(SASRec):
        """An encoder that only its recipe names."""

    class OwnRec(Recommender):
        """A recipe (mine)."""

        encoder = seqcl.part(Own, dim=8)

    registry.register("model", OwnRec)
    assert registry.TABLES["encoder"].find("Own") is Own
    assert config.experiment({"model": OwnRec}).recipe.chosen == {"encoder": "Own"}
    assert {("encoder", "Own", __name__), ("model", "OwnRec", __name__)} <= set(
        config.experiment({"model": "OwnRec"}).needs()
    )


def test_a_recipe_that_is_not_well_declared_is_refused_at_once(tables):
    class TwoViews(objectives.TwoViews):
        """Named as ours is."""

    class Clash(Contrastive):
        """A recipe (mine)."""

        objective = seqcl.part(TwoViews)

    class Bare(Contrastive):
        """A recipe (mine)."""

        objective = MoCo

    class Nothing(Contrastive):
        """A recipe (mine)."""

    with pytest.raises(UserError, match="the objective name 'TwoViews' is taken, it is seqcl's own"):
        registry.register("model", Clash)
    with pytest.raises(UserError, match=r"Bare: write objective = part\(MoCo\), not the class alone"):
        registry.register("model", Bare)
    assert {"Clash", "Bare"}.isdisjoint(registry.TABLES["model"])
    with pytest.raises(UserError, match=r"Nothing declares no objective: write objective = part"):
        seqcl.train("markov", model=Nothing, train={"epochs": 1}, progress=False)


def test_a_class_goes_where_a_name_goes(tables):
    def mine(states, table, targets, negatives):
        return (states * 0).sum()

    class OtherRec(Recommender):
        """A recipe (mine)."""

    chosen = config.experiment(
        {"next_item": {"loss": mine}, "encoder": {"name": GRU, "dim": 8}, "baseline": [OtherRec, "NARM"]}
    )
    assert chosen.flat["next_item.loss"] == "mine" and chosen.flat["encoder.name"] == "GRU"
    assert chosen.options.baselines == ["Popularity", "OtherRec", "NARM"]
    assert config.experiment({"model": seqcl.part(OtherRec)}).options.model == "OtherRec"
    for wrong in (partial(GRU, dim=8), GRU(num_items=3, max_len=3)):
        with pytest.raises(UserError, match="expected a class, a function or part"):
            config.experiment({"encoder": wrong})


def test_a_loss_or_metric_that_cannot_be_called_is_refused(tables):
    def drawn(states, table, targets, drawn):
        return 0

    def short(states, t, targets):
        return 0

    def one(ranks):
        return ranks

    for kind, wrong, takes in (("loss", drawn, "negatives"), ("loss", short, "table"), ("metric", one, "ranks, k")):
        with pytest.raises(UserError, match=f"{wrong.__name__} cannot be registered as {kind}: .*{takes}"):
            registry.register(kind, wrong)

    def filled(states, table, targets, negatives, real):
        return 0

    registry.register("loss", filled)  # it gets every keyword that ours get


def test_a_view_without_options_needs_no_constructor(tables):
    @registry.register("view")
    class Turned(View):
        """Turn a row around."""

        def forward(self, batch, generator):
            back = (batch.lengths[:, None] - 1 - torch.arange(batch.items.shape[1])).clamp(min=0)
            real = batch.items > 0
            return batch._replace(items=batch.items.gather(1, back).masked_fill(~real, 0), targets=None)

    class TurnedRec(Contrastive):
        """A recipe (mine)."""

        views = seqcl.part(Turned)

    check_view(Turned())
    assert config.experiment({"views": "Turned"}).recipe.chosen["views"] == "Turned"
    assert config.experiment({"model": TurnedRec, "views": "Crop"}).recipe.chosen["views"] == "Crop"


def test_why_a_part_does_not_fit_is_said(tables):
    class NeedsMore(MoCo):
        """Asks for more."""

        def __init__(self, *, views, extra, weight: float = 0.1) -> None:
            super().__init__(views=views, dim=3)

    with pytest.raises(UserError, match=r"it needs extra, which .*; it has no parameter dim, which"):
        config.experiment({"objective": NeedsMore})


def test_a_file_that_is_imported_already_is_not_imported_again(tmp_path, monkeypatch, tables):
    (tmp_path / "twice_parts.py").write_text("made = []\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import twice_parts

    plugins.load(str(tmp_path / "twice_parts.py"))
    assert sys.modules["twice_parts"] is twice_parts
    (tmp_path / "json.py").write_text("", encoding="utf-8")
    (tmp_path / "ends.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    (tmp_path / "wrong.py").write_text("\nx = = 1\n", encoding="utf-8")
    for name, message in (
        ("json.py", "there is a module 'json' already"),
        ("ends.py", r"SystemExit: 3 \(.*ends\.py:1\)"),
        ("wrong.py", r"SyntaxError: .*\(.*wrong\.py:2\)$"),
    ):
        with pytest.raises(UserError, match=message):
            plugins.load(str(tmp_path / name))
    for name in ("..rel", ".", ""):
        with pytest.raises(UserError, match="expected the path of a file"):
            plugins.load(name)


def test_help_of_a_run_does_not_go_on_with_it(run, outside):
    done = seqcl_there(outside, "train", "--plugin", "my_parts.py", "--resume", run, "--help")
    assert done.returncode == 0 and "--objective.margin" in done.stdout and "recall" not in done.stdout, done.stderr
