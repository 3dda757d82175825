"""RecBole's sequential models as encoders: what every encoder must hold to, their options, and runs that are saved."""

from __future__ import annotations

import json
import os

import pandas as pd
import pytest
import torch

import seqcl.integrations.recbole_plugin  # noqa: F401 - the entry point, which a test may come before
from seqcl.cli.main import main
from seqcl.config import resolve
from seqcl.encoders import ENCODERS
from seqcl.errors import UserError
from seqcl.types import PAD, SeqBatch
from tests.recbole_world import OWN_WARNINGS, recbole_or_skip, shop

recbole_or_skip()
pytestmark = OWN_WARNINGS

ITEMS, MAX_LEN, DIM = 30, 12, 8
NAMES = ["SASRec", "GRU4Rec", "NARM", "STAMP", "Caser", "NextItNet", "BERT4Rec", "CORE", "LightSANs", "SINE", "SRGNN", "GCSAN",
         "HGN", "SHAN", "NPE", "HRM", "FOSSIL", "TransRec", "GRU4RecCPR"]  # fmt: skip
ROWS = [[3, 9, 1, 30, 7], [5], [8, 8], [2, 4, 6, 8, 10, 12, 14]]
NO_ORDER = ("STAMP", "SHAN", "HGN", "NPE", "HRM", "FOSSIL", "SINE", "SRGNN", "GCSAN", "CORE", "TransRec")
"""Of three different items, these read the first two as a set, or nearly."""


@pytest.fixture(params=NAMES)
def encoder(request):
    torch.manual_seed(0)
    made = ENCODERS.find(f"recbole:{request.param}")(num_items=ITEMS, max_len=MAX_LEN, dim=DIM).eval()
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.3)  # some begin so small that what they read could be ignored unnoticed
        made.item_embeddings()[PAD] = 0
    return made


def batch(rows, width=None):
    width = width or max(map(len, rows))
    items = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
    return SeqBatch(items, torch.tensor([len(row) for row in rows]))


def test_shapes_and_the_tied_table(encoder):
    assert encoder(batch(ROWS)).shape == (4, 7, DIM) and encoder.last(batch(ROWS)).shape == (4, DIM)
    table = encoder.item_embeddings()
    assert table.shape == (ITEMS + 2, DIM) and table[PAD].abs().sum() == 0 and table[-1].abs().sum() > 0


def test_a_state_is_that_of_the_row_that_ends_there_in_whatever_batch_and_padding(encoder):
    narrow, wide = batch(ROWS), batch(ROWS, width=MAX_LEN)
    filled = wide._replace(items=wide.items.masked_fill(wide.items == PAD, 17))
    states = encoder(narrow)
    torch.testing.assert_close(states[torch.arange(4), narrow.lengths - 1], encoder.last(narrow))
    torch.testing.assert_close(encoder.last(narrow), encoder.last(filled))
    torch.testing.assert_close(encoder.last(batch([ROWS[3][:4]]))[0], states[3, 3])
    order = torch.tensor([2, 0, 3, 1])
    shuffled = SeqBatch(narrow.items[order], narrow.lengths[order])
    torch.testing.assert_close(encoder.last(narrow)[order], encoder.last(shuffled), rtol=1e-4, atol=1e-5)


def test_the_newest_item_and_the_order_of_items_matter(encoder):
    states = encoder.last(batch([[1, 2, 3], [1, 2, 4], [2, 1, 3]]))
    assert not torch.allclose(states[0], states[1], atol=1e-6)
    if type(encoder).__name__.removeprefix("recbole:") not in NO_ORDER:
        assert not torch.allclose(states[0], states[2], atol=1e-6)


def test_the_items_learn_and_the_pad_row_does_not(encoder):
    encoder.train()
    encoder.last(batch(ROWS)).square().sum().backward()
    gradient = encoder.item_embeddings().grad
    assert gradient[1:].abs().sum() > 0 and gradient[PAD].abs().sum() == 0


def test_a_row_longer_than_max_len_is_refused(encoder):
    with pytest.raises(UserError, match=f"max_len={MAX_LEN}"):
        encoder.last(batch([list(range(1, MAX_LEN + 2))]))


def test_a_full_row_is_read_whole(encoder):
    row = list(range(1, MAX_LEN + 1))
    if type(encoder).__name__ in ("recbole:HRM", "recbole:TransRec"):
        pytest.skip("reads the newest items alone")
    changed = encoder.last(batch([row, [30, *row[1:]]]))
    assert not torch.equal(changed[0], changed[1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NARMM", "did you mean NARM"),
        ("FPMC", "needs next_item besides the items of a row"),
        ("DIN", "next_items"),
        ("SASRecF", "of RecBole's data set, not only the items of a row"),
        ("GRU4RecKG", "of RecBole's data set"),
        ("RepeatNet", "it has no table of items"),
        ("SASRecCPR", "it gives a list, not a state"),
    ],
)
def test_a_model_that_needs_more_than_a_row_says_what(name, message):
    with pytest.raises(UserError, match=message):
        ENCODERS.find(f"recbole:{name}")(num_items=ITEMS, max_len=MAX_LEN)


def test_options_are_the_keys_of_recboles_own_file():
    words = [
        "--model",
        "CL4Rec",
        "--encoder",
        "recbole:NARM",
        "--encoder.hidden_size",
        "16",
        "--encoder.dropout_probs",
        "[0.1,0.2]",
    ]
    found = resolve(words).flat
    assert found["encoder.name"] == "recbole:NARM" and found["encoder.hidden_size"] == 16
    assert found["encoder.dropout_probs"] == [0.1, 0.2] and found["encoder.embedding_size"] is None
    with pytest.raises(UserError, match=r"unknown option 'encoder.hiden_size': did you mean encoder\.hidden_size"):
        resolve(["--encoder", "recbole:NARM", "--encoder.hiden_size", "16"])
    with pytest.raises(UserError, match=r"option encoder\.hidden_size"):
        resolve(["--encoder", "recbole:NARM", "--encoder.hidden_size", "many"])


def test_an_encoder_of_recbole_and_one_of_ours_replace_each_other(tmp_path):
    file = tmp_path / "file.yaml"
    file.write_text("model: CL4Rec\nencoder: {dim: 32, heads: 4}\n")
    found = resolve(["--config", str(file), "--encoder", "recbole:GRU4Rec"]).flat
    assert found["encoder.name"] == "recbole:GRU4Rec" and "encoder.heads" not in found
    file.write_text('encoder: {name: "recbole:GRU4Rec", embedding_size: 32}\n')
    assert resolve(["--config", str(file), "--encoder", "GRU"]).flat["encoder.name"] == "GRU"


def test_two_names_of_one_width_must_agree():
    with pytest.raises(UserError, match="two names of one width"):
        ENCODERS.find("recbole:SASRec")(num_items=ITEMS, max_len=MAX_LEN, dim=16, hidden_size=64)  # RecBole's default
    widths = [({}, 64), ({"dim": 16}, 16), ({"hidden_size": 16}, 16), ({"dim": 16, "hidden_size": 16}, 16)]
    for options, width in widths:
        assert ENCODERS.find("recbole:SASRec")(num_items=ITEMS, max_len=MAX_LEN, **options).dim == width
    with pytest.raises(UserError, match="recbole:SASRec cannot be built with these options"):
        ENCODERS.find("recbole:SASRec")(num_items=ITEMS, max_len=MAX_LEN, n_heads=3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SASRec", {"n_layers": 0}),
        ("SASRec", {"n_heads": 0}),
        ("SASRec", {"dim": 0}),
        ("Caser", {"nv": 0}),
        ("Caser", {"dim": 0}),
    ],
)
def test_a_size_that_cannot_be_is_a_users_mistake(name, options):
    with pytest.raises(UserError, match=r"cannot be built with these options|must be 1 or more"):
        ENCODERS.find(f"recbole:{name}")(num_items=9, max_len=4, **options)


def test_help_shows_their_options(capsys):
    with pytest.raises(SystemExit):
        resolve(["--encoder", "recbole:Caser", "--help"])
    text = capsys.readouterr().out
    assert "--encoder.nv" in text and "recbole:NAME" in text


def test_making_one_leaves_the_process_as_it_was(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run.py", "--hidden_size=3", "train"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    made = ENCODERS.find("recbole:SASRec")(num_items=ITEMS, max_len=MAX_LEN)
    assert made.dim == 64 and os.environ["CUDA_VISIBLE_DEVICES"] == "5" and not torch.is_anomaly_enabled()
    assert not list(tmp_path.iterdir())


QUICK = ["--data.windows", "prefix", "--data.max_len", "5", "--train.batch_size", "256", "--eval.exclude_seen", "true"]


def test_one_pass_is_refused_and_leaves_no_folder_behind(tmp_path, capsys):
    words = ["--dataset", "markov", "--encoder", "recbole:NARM", "--runs", str(tmp_path / "runs")]
    assert main(["train", *words]) == 2
    error = capsys.readouterr().err
    assert "--data.windows prefix" in error and "--encoder.positions" not in error and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("model", "name"), [("CL4Rec", "NARM"), ("MoCoRec", "Caser"), ("SASRec", "BERT4Rec")])
def test_a_run_is_saved_evaluated_exported_and_goes_on(tmp_path, model, name, capsys):
    words = ["--model", model, "--encoder", f"recbole:{name}", "--encoder.dim", "8", "--train.epochs", "1"]
    place = str(shop(tmp_path / "data") / "shop")
    assert main(["train", "--dataset", place, *QUICK, *words, "--runs", str(tmp_path / "runs")]) == 0
    (folder,) = (tmp_path / "runs").glob("*-*")
    kept = json.loads((folder / "metrics.json").read_text())["test"]
    capsys.readouterr()
    assert main(["evaluate", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == pytest.approx(kept)
    assert main(["recommend", str(folder), "--items", "1,2", "--k", "3"]) == 0
    mine = capsys.readouterr().out
    assert main(["export", str(folder), str(tmp_path / "bundle"), "--index", "flat"]) == 0
    assert main(["recommend", str(tmp_path / "bundle"), "--items", "1,2", "--k", "3"]) == 0
    assert [line.split()[0] for line in mine.splitlines()] == [
        line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]
    ]
    for asked, own in ((folder, ["--users", "all"]), (tmp_path / "bundle", ["--histories", place])):
        assert main(["recommend", str(asked), *own, "--out", str(tmp_path / f"{own[0]}.parquet"), "--k", "3"]) == 0
    of_run, of_bundle = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("--users", "--histories"))
    pd.testing.assert_frame_equal(of_run, of_bundle, check_exact=False, rtol=1e-4)
    assert main(["train", "--resume", str(folder), "--train.epochs", "2"]) == 0
    assert json.loads((folder / "metrics.json").read_text())["training"]["epochs"] == 2
