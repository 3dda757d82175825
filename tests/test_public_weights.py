"""Published weights: read without running anything, and ranked as a slow version of the authors' code ranks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from seqcl.cli.main import main
from seqcl.data import load
from seqcl.errors import UserError
from seqcl.experiment.public_weights import RENAMED, evaluate_public
from tests import reference_public_weights as reference

ITEMS, DIM, LENGTH, HEADS = 12, 8, 5, 2


def made(*, layers=2, rows=ITEMS + 2):
    """Random weights by S3-Rec's names."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    found = {"item_embeddings.weight": draw(rows, DIM), "position_embeddings.weight": draw(LENGTH, DIM)}
    for layer in range(layers):
        for name, shape in {
            **{f"attention.{part}": (DIM, DIM) for part in ("query", "key", "value", "dense")},
            "attention.LayerNorm": (DIM,),
            "intermediate.dense_1": (4 * DIM, DIM),
            "intermediate.dense_2": (DIM, 4 * DIM),
            "intermediate.LayerNorm": (DIM,),
        }.items():
            found[f"item_encoder.layer.{layer}.{name}.weight"] = draw(*shape) * 0.5
            found[f"item_encoder.layer.{layer}.{name}.bias"] = draw(shape[0]) * 0.1
    return {**found, "LayerNorm.weight": draw(DIM), "LayerNorm.bias": draw(DIM)}


@pytest.fixture
def log(tmp_path):
    """Rows of users in the text format, with repeats, short and long ones; and the same by user."""
    random = np.random.default_rng(0)
    rows = [random.integers(1, ITEMS + 1, random.integers(3, 10)).tolist() for _ in range(40)]
    rows[0] = list(range(ITEMS, 0, -1))  # every item is there
    file = tmp_path / "shop.txt"
    file.write_text("".join(f"{user} {' '.join(map(str, row))}\n" for user, row in enumerate(rows, 1)))
    return file, rows


def saved(tensors, folder, name="weights.pt"):
    torch.save(tensors, folder / name)
    return folder / name


def expected(rows, weights, seen, **options):
    """HR@5 and NDCG@10 by the slow version."""
    double = {name: one.double().numpy() for name, one in weights.items()}
    ranks = [reference.rank(double, row[:-1], row[-1], seen=seen, heads=HEADS, **options) for row in rows]
    if seen == "exclude":  # what cannot be hit is no hit, though few items are left
        ranks = [rank if row[-1] not in row[:-1] else 99 for rank, row in zip(ranks, rows, strict=True)]
    return {
        "hr@5": np.mean([rank <= 5 for rank in ranks]),
        "ndcg@10": np.mean([1 / np.log2(rank + 1) if rank <= 10 else 0 for rank in ranks]),
    }


@pytest.mark.parametrize("seen", ["exclude", "keep", "zero"])
@pytest.mark.parametrize("layers", [1, 2])
def test_weights_rank_as_the_authors_code_does(tmp_path, log, seen, layers):
    file, rows = log
    weights = made(layers=layers)
    found = evaluate_public(saved(weights, tmp_path), "coserec", str(file), seen=seen)
    for name, value in expected(rows, weights, seen).items():
        assert found["metrics"][name] == pytest.approx(value), name
    assert 0 < found["metrics"]["hr@5"] < 1


def test_the_ways_to_rank_differ(tmp_path, log):
    path = saved(made(), tmp_path)
    found = [evaluate_public(path, "icsrec", str(log[0]), seen=seen)["metrics"]["ndcg@10"] for seen in ("exclude", "keep", "zero")]  # fmt: skip
    assert len(set(found)) == 3


def test_recboles_rows_are_padded_behind_and_its_items_come_in_the_order_of_the_file(tmp_path, log):
    file, rows = log
    weights = made(rows=ITEMS + 1)
    order = list(dict.fromkeys(item for row in rows for item in row))
    table = weights["item_embeddings.weight"].clone()
    theirs = {**weights, "item_embeddings.weight": table.clone()}
    for place, item in enumerate(order, 1):
        theirs["item_embeddings.weight"][place] = table[item]
    for name, ours in RENAMED.items():
        theirs = {key.replace(ours, name): one for key, one in theirs.items()}
    found = evaluate_public(saved({"state_dict": theirs}, tmp_path), "recbole", str(file), seen="keep")
    weights["item_embeddings.weight"] = torch.cat([table, table[:1]])  # a row for the MASK, which is no candidate
    for name, value in expected(rows, weights, "keep", front=False).items():
        assert found["metrics"][name] == pytest.approx(value), name


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_no_code_of_a_file_runs(tmp_path, log):
    mark = tmp_path / "sprung"
    weights = made()
    path = saved({"config": Trap(mark), "state_dict": weights}, tmp_path)
    with pytest.raises(UserError, match=r"holds more than tensors \("):
        evaluate_public(path, "coserec", str(log[0]))
    with pytest.raises(UserError, match="no SASRec of --format recbole"):  # read, and without the trap
        evaluate_public(
            saved({"config": Trap(mark), "state_dict": {"x": torch.ones(1)}}, tmp_path), "recbole", str(log[0])
        )
    with pytest.raises(UserError, match="no weights by name"):  # the trap stands among the weights
        evaluate_public(saved({"state_dict": {**weights, "trap": Trap(mark)}}, tmp_path), "recbole", str(log[0]))
    assert not mark.exists()
    torch.load(path, weights_only=False)  # and it is a trap
    assert mark.exists()


@pytest.mark.parametrize("form", ["coserec", "recbole"])
@pytest.mark.parametrize("content", ["cut", "text", "empty"])
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(tmp_path, log, form, content):
    path = saved({"state_dict": made()}, tmp_path)
    path.write_bytes({"cut": path.read_bytes()[:3000], "text": b"1 2 3\n4 5 6\n", "empty": b""}[content])
    with pytest.raises(UserError, match="is no checkpoint of") as refused:
        evaluate_public(path, form, str(log[0]))
    assert "weights_only" not in str(refused.value)


def wrong(**changes):
    """Weights with others in their place; None takes one away."""
    found = {**made(), **changes}
    return {name: one for name, one in found.items() if one is not None}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (wrong(**{"LayerNorm.bias": None}), r"lacks the weight LayerNorm\.bias"),
        (wrong(**{"head.weight": torch.ones(3)}), r"has the weight head\.weight"),
        (
            wrong(**{"item_embeddings.weight": torch.ones(9, DIM)}),
            "other data: its table has 9 rows, and the data has 12",
        ),
        (wrong(**{"position_embeddings.weight": None}), "it has no position_embeddings"),
        (wrong(**{"LayerNorm.bias": torch.ones(3)}), r"another model.*edge_norm\.bias"),
        (wrong(**{"LayerNorm.bias": torch.full((DIM,), torch.nan)}), "not finite"),
        ([torch.ones(3)], "no weights by name"),
        ({}, "no weights by name"),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, log, weights, message):
    with pytest.raises(UserError, match=message):
        evaluate_public(saved(weights, tmp_path), "coserec", str(log[0]))


def test_items_are_rows_of_the_table(tmp_path, log):
    rows = log[1]
    text = tmp_path / "words.txt"
    text.write_text("".join(f"{user} {' '.join(f'i{item}' for item in row)}\n" for user, row in enumerate(rows, 1)))
    moved = tmp_path / "moved.txt"
    moved.write_text("".join(f"{user} {' '.join(str(item - 1) for item in row)}\n" for user, row in enumerate(rows, 1)))
    path = saved(made(), tmp_path)
    with pytest.raises(UserError, match="'i1' is no number"):
        evaluate_public(path, "coserec", str(text))
    with pytest.raises(UserError, match="ids from 0 to 11"):
        evaluate_public(path, "coserec", str(moved))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate"], "needs a run folder, or --checkpoint FILE"),
        (["evaluate", "run", "--seen", "keeep"], "did you mean keep"),
        (["evaluate", "run", "--seen", "zero"], "--seen zero goes with --checkpoint"),
        (["evaluate", "run", "--seen", "keep", "--index", "flat"], "--seen does not go with --index"),
        (["evaluate", "run", "--data.k_core", "0"], "--data.k_core goes with --checkpoint"),
        (["evaluate", "run", "--checkpoint", "x.pt"], "not both run and x.pt"),
        (["evaluate", "--checkpoint", "x.pt"], "needs --format"),
        (["evaluate", "--checkpoint", "x.pt", "--format", "coserec"], "needs --dataset"),
        (["evaluate", "--checkpoint", "x.pt", "--index", "flat"], "--index goes with a run"),
        (["evaluate", "--checkpoint", "x.pt", "--format", "cosrec", "--dataset", "markov"], "did you mean coserec"),
        (["evaluate", "--checkpoint", "x.pt", "--format", "coserec", "--dataset", "markov"], "no checkpoint at x.pt"),
        (["evaluate", "--checkpoint", "x.pt", "--format", "recbole", "--dataset", "markov", "--seen", "zero"], "--seen keep"),
    ],
)  # fmt: skip
def test_words_that_do_not_fit_are_refused(words, message, capsys):
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_heads_that_do_not_divide_are_refused(tmp_path, log, capsys):
    words = ["evaluate", "--checkpoint", str(saved(made(), tmp_path)), "--format", "coserec", "--dataset", str(log[0])]
    for heads, message in (("3", "does not divide"), ("0", "must be 1 or more")):
        assert main([*words, "--heads", heads]) == 2
        assert message in capsys.readouterr().err


def published(name, data):
    """The file of that name in the folder SEQCL_PUBLIC_WEIGHTS, and its data; skips where one of them is missing."""
    path = Path(os.environ.get("SEQCL_PUBLIC_WEIGHTS", "")) / name
    if not os.environ.get("SEQCL_PUBLIC_WEIGHTS") or not path.is_file():
        pytest.skip(f"SEQCL_PUBLIC_WEIGHTS names no folder with {name}")
    file = Path(os.environ.get("SEQCL_DATA", "")) / f"{data}.txt"
    if not file.is_file():
        pytest.skip(f"SEQCL_DATA names no folder with {data}.txt")
    assert len(load(str(file)))
    return path, file


@pytest.mark.parametrize(
    ("name", "form", "figures"),
    [
        ("CoSeRec-Beauty-0.pt", "coserec", (0.0504, 0.0339, 0.0726, 0.0410, 0.1035, 0.0488)),
        ("ICLRec-Beauty-1.pt", "iclrec", (0.0500, 0.0326, 0.0744, 0.0403, 0.1058, 0.0483)),
        ("ICSRec-SAS-Beauty-0.pt", "icsrec", (0.0698, 0.0494, 0.0960, 0.0578, 0.1298, 0.0663)),
    ],
)
def test_published_files_give_the_published_figures(name, form, figures, capsys):
    path, file = published(name, "Beauty")
    words = [
        "evaluate",
        "--checkpoint",
        str(path),
        "--format",
        form,
        "--dataset",
        str(file),
        "--seen",
        "zero",
        "--slices",
    ]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["protocol"]["exclude_seen"] == "at score 0" and "head" in found["slices"]["target_popularity"]
    keys = [f"{metric}@{k}" for k in (5, 10, 20) for metric in ("hr", "ndcg")]
    assert [found["metrics"][key] for key in keys] == pytest.approx(figures, abs=1e-4)
