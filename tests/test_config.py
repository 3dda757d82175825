"""Options come from constructor signatures, files and the command line, in this order."""

from __future__ import annotations

import pytest

from seqcl import config, experiment
from seqcl.errors import UserError
from seqcl.models import MODELS
from seqcl.parts import declared, options_of


def resolve(*words):
    return config.resolve(list(words))


def flat(*words):
    return resolve(*words).flat


def test_defaults_are_those_of_the_constructors():
    found = flat("--model", "CL4Rec")
    for section, part in declared(MODELS["CL4Rec"]).items():
        for name, parameter in options_of(part.component).items():
            assert found[f"{section}.{name}"] == part.options.get(name, parameter.default), (section, name)


def test_every_option_reaches_the_part_it_names():
    parts = resolve("--encoder.dim", "16", "--objective.weight=0.5", "--views.crop", "0.25").recipe.parts
    assert parts["encoder"].options["dim"] == 16
    assert parts["objective"].options["weight"] == 0.5
    assert parts["views"].options["crop"] == 0.25


def test_later_files_win_and_options_win_over_files(tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("model: SASRec\nencoder:\n  dim: 8\n  layers: 3\nseed: 5\n")
    two.write_text("encoder:\n  dim: 16\n")
    found = flat("--config", str(one), f"--config={two}", "--seed", "7")
    assert [found[key] for key in ("model", "encoder.dim", "encoder.layers", "seed")] == ["SASRec", 16, 3, 7]


def test_another_encoder_brings_its_own_options():
    found = flat("--model", "CL4Rec", "--encoder", "GRU", "--encoder.hidden", "3")
    assert found["encoder.name"] == "GRU" and found["encoder.hidden"] == 3 and "encoder.heads" not in found


def test_a_file_may_name_the_encoder_in_one_word(tmp_path):
    file = tmp_path / "gru.yaml"
    file.write_text("encoder: GRU\n")
    assert flat("--config", str(file))["encoder.name"] == "GRU"


FILE = """
model: CL4Rec
encoder: {dim: 32, heads: 4, dropout: 0.5}
views: {crop: 0.3}
objective: {weight: 0.7, temperature: 0.3, similarity: dot}
train: {lr: 0.05}
"""


@pytest.mark.parametrize(
    ("words", "left_out"),
    [
        (
            ["--objective", "MoCo", "--objective.queue", "64"],
            ["objective.weight", "objective.temperature", "objective.similarity"],
        ),
        (["--objective", "MoCo", "--objective.weight", "0.3"], ["objective.temperature", "objective.similarity"]),
        (["--encoder", "GRU"], ["encoder.heads", "encoder.dropout"]),
        (["--model", "CoSeRec"], ["views.crop"]),
        (["--model", "SASRec"], ["views.crop", "objective.weight", "objective.temperature", "objective.similarity"]),
        (["--model", "CL4SRec", "--objective", "TwoViews", "--encoder", "SASRec"], []),
    ],
)
def test_options_of_a_class_that_is_replaced_are_left_out_and_named_in_one_line(tmp_path, words, left_out, capsys):
    file = tmp_path / "file.yaml"
    file.write_text(FILE)
    found = resolve("--config", str(file), *words)
    said = capsys.readouterr().err
    assert said == (
        f"seqcl: {file}: left out, because the class they belong to is replaced: {', '.join(left_out)}\n"
        if left_out
        else ""
    )
    assert found.flat["encoder.dim"] == 32 and found.train.lr == 0.05  # these have one meaning everywhere
    defaults = resolve("--model", found.options.model, *words).values()
    for section in {name.partition(".")[0] for name in left_out} & set(found.values()):
        assert found.values()[section] | {"dim": 32} == defaults[section] | {"dim": 32}


@pytest.mark.parametrize("model", sorted(set(MODELS) - {"CL4Rec", "CL4SRec", "TwoTower", "BERT4Rec", "S3Rec"}))
def test_another_model_brings_its_own_classes_whatever_a_whole_file_names(tmp_path, model, capsys):
    file = tmp_path / "whole.yaml"
    file.write_text(resolve("--model", "CL4Rec", "--encoder", "TapRec", "--encoder.dim", "16", "--seed", "5").to_yaml())
    found, own = flat("--config", str(file), "--model", model), flat("--model", model)
    assert found["seed"] == 5
    for section in declared(MODELS[model]):
        if "encoder" in section:
            assert found[f"{section}.dim"] == 16
        assert found.get(f"{section}.name") == own.get(f"{section}.name")
    assert "whole.yaml: left out" in capsys.readouterr().err


def test_a_file_behind_another_replaces_what_it_names(tmp_path, capsys):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(FILE)
    two.write_text("objective: {name: SimSiam, weight: 0.2}\n")
    found = flat("--config", str(one), "--config", str(two))
    assert [found[key] for key in ("objective.name", "objective.weight", "views.crop")] == ["SimSiam", 0.2, 0.3]
    assert "one.yaml: left out" in capsys.readouterr().err
    one.write_text("objective: {weight: 0.4}\nencoder: {name: GRU, hidden: 3}\n")  # names no model, and no objective
    found = flat("--config", str(one), "--model", "CoSeRec", "--objective", "MoCo")
    assert [found[key] for key in ("objective.weight", "encoder.name", "encoder.hidden")] == [0.4, "GRU", 3]
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--objective", "MoCoo"], "^unknown objective 'MoCoo': did you mean MoCo"),
        (["--model", "CL4Rek"], "^unknown model 'CL4Rek': did you mean CL4Rec"),
        (["--encoder", "GRU", "--encoder.hiden", "3"], "^unknown option 'encoder.hiden': did you mean encoder.hidden"),
    ],
)
def test_a_mistake_in_what_replaces_is_all_that_is_said(tmp_path, words, message, capsys):
    file = tmp_path / "file.yaml"
    file.write_text(FILE + "seed: 1\n")
    with pytest.raises(UserError, match=message):
        resolve("--config", str(file), *words)
    assert not capsys.readouterr().err


def test_what_is_printed_reads_back_the_same(tmp_path):
    found = resolve("--model", "CL4Rec", "--encoder", "GRU", "--train.lr", "0.01", "--data.windows", "last")
    file = tmp_path / "config.yaml"
    file.write_text(found.to_yaml())
    assert flat("--config", str(file)) == found.flat


def test_the_alias_is_the_same_model():
    assert MODELS["CL4SRec"] is MODELS["CL4Rec"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "CL4Rek"], "unknown model 'CL4Rek': did you mean CL4Rec"),
        (["--encoder.dmi", "3"], "unknown option 'encoder.dmi': did you mean encoder.dim"),
        (["--encodr", "GRU"], "unknown option 'encodr': did you mean encoder"),
        (["--encoder", "GRUU"], "unknown encoder 'GRUU': did you mean GRU"),
        (["--data.min_rating", "good"], r"^option data\.min_rating: expected a number, not good$"),
        (["--encoder.dim", "many"], r"^option encoder\.dim: expected a whole number, not many$"),
        (["--next_item.bias", "maybe"], r"^option next_item\.bias: expected true or false, not maybe$"),
        (["--data.windows", "sliding_"], "data.windows"),
        (["--seed"], "option --seed needs a value"),
        (["--print_confg"], "did you mean --print_config?"),
        (["--print-config", "--seed", "1"], "did you mean --print_config?"),
        (["--hlep"], "did you mean --help?"),
        (["CL4Rec"], "'CL4Rec' is not an option"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: No such file"),
        (
            ["--model", "SASRec", "--objective", "MoCo"],
            "SASRec has no section objective; .*; models with it: .*CL4Rec.* and others$",
        ),
        (["--objective.weight", "1", "--model", "SASRec"], "SASRec has no section objective"),
        (
            ["--model", "Popularity", "--encoder.dim", "4"],
            r"^option encoder\.dim: Popularity has no section encoder; its sections: data, eval, train; models with it: \w+, ",
        ),
        (
            ["--model", "ItemKNN", "--encoder", "GRU"],
            r"^option encoder: ItemKNN has no section encoder; its sections: data, eval, similarity, train; models with it: ",
        ),
    ],
)
def test_a_mistake_names_the_option_and_the_nearest_valid_one(words, message):
    with pytest.raises(UserError, match=message):
        resolve(*words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model: SASRec\n\nencoder:\n  dmi: 3\n",
            r"bad\.yaml:4: unknown option 'encoder\.dmi': did you mean encoder\.dim",
        ),
        ("model: SASRek\n", r"bad\.yaml:1: unknown model 'SASRek'"),
        ("encoder:\n  dim: many\n", r"bad\.yaml:2: option encoder\.dim"),
        (
            "model: TwoTower\nfeatures:\n  items: [kind, price]\n",
            r"bad\.yaml:3: option features\.items: expected text, not \['kind', 'price'\]$",
        ),
        ("data:\n  user: 0\n", r"bad\.yaml:2: option data\.user: expected text, not 0$"),
        ("a: [1\n", r"bad\.yaml"),
        (
            "model: Popularity\nencoder:\n  dim: 4\n",
            r"bad\.yaml:3: option encoder\.dim: Popularity has no section encoder",
        ),
        (
            "model: ItemKNN\nencoder: GRU\n",
            r"bad\.yaml:2: option encoder: ItemKNN has no section encoder; its sections",
        ),
        ("model: Popularity\nnext_item: {}\n", r"bad\.yaml:2: option next_item: Popularity has no section next_item"),
        ("- 1\n", "must hold `key: value` lines"),
    ],
)
def test_a_mistake_in_a_file_names_the_line(tmp_path, text, message):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        resolve("--config", str(file))


def test_a_mapping_is_checked_like_a_file():
    with pytest.raises(UserError, match=r"did you mean encoder\.dim"):
        experiment.train("markov", encoder={"dmi": 3})
    with pytest.raises(
        UserError, match="option encoder: ItemKNN has no section encoder; its sections: data, eval, sim"
    ):
        experiment.train("markov", model="ItemKNN", encoder="GRU")


@pytest.mark.parametrize("model", MODELS)
def test_help_names_every_model_with_its_paper(model, capsys):
    with pytest.raises(SystemExit) as stop:
        resolve("--model", model, "--help")
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(name in text for name in MODELS) and "arXiv 2010.14395" in text
    for section in declared(MODELS[model]):
        assert f"--{section}" in text
