"""Markov, SKNN and V-SKNN against loops over rows, pairs and items."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import choose
from seqcl.data import leave_one_out, pack
from seqcl.data.synthetic import markov
from seqcl.errors import UserError
from seqcl.models.markov import Markov, transitions
from seqcl.models.neighbours import NearestRows
from seqcl.models.sknn import SKNN
from seqcl.models.vsknn import VSKNN
from seqcl.parts import part
from seqcl.types import SeqBatch
from tests import reference_baselines as reference

LOG = markov(users=40, items=14, length=8, branching=4, seed=3).interactions
TRAIN = leave_one_out(pack(LOG), max_len=50).train
ITEMS = TRAIN.num_items
ROWS = [TRAIN.items[start:end].tolist() for start, end in zip(TRAIN.offsets[:-1], TRAIN.ends, strict=True)]
QUERIES = [[3, 1, 3, 5], [2], ROWS[4], ROWS[5], [7, 7, 7], list(range(1, ITEMS + 1))]
OWN = [0, 1, 4, 5, 6, 7]


def batch(*, users=True):
    width = max(map(len, QUERIES))
    items = torch.tensor([row + [0] * (width - len(row)) for row in QUERIES])
    return SeqBatch(items, torch.tensor([len(row) for row in QUERIES]), users=torch.tensor(OWN) if users else None)


@pytest.mark.parametrize("backoff", [0.3, 5.0])
def test_a_chain_gives_the_chances_of_its_counts(backoff):
    found = Markov(TRAIN, next_items=part(transitions, backoff=backoff)).scores(batch())
    expected = [reference.markov(ROWS, row, ITEMS, backoff=backoff) for row in QUERIES]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(found.sum(1).numpy(), 1, rtol=1e-5)


def test_a_chain_leaves_the_shares_after_an_item_that_nothing_follows():
    items = TRAIN.items.copy()
    alone = int(items[TRAIN.ends[0] - 1])
    items[(items == alone)] = alone % ITEMS + 1
    items[TRAIN.ends[0] - 1] = alone  # it stands at the end of a row, and nowhere else
    train = replace(TRAIN, items=items)
    found = Markov(train).scores(SeqBatch(torch.tensor([[alone]]), torch.tensor([1])))[0]
    counts = train.item_counts()[1:-1]
    np.testing.assert_allclose(found.numpy(), counts / counts.sum(), rtol=1e-5)


VARIANTS = {
    "SKNN": (SKNN, {}),
    "few": (SKNN, {"k": 3, "recent": 9}),
    "dot": (SKNN, {"similarity": "dot", "k": 5, "emphasis": 2.0}),
    "all": (SKNN, {"recent": 0, "k": 7, "idf": 0.5}),
    "V-SKNN": (VSKNN, {"k": 6, "recent": 20}),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("users", [True, False])
@pytest.mark.parametrize("pairs", [1 << 22, 40])
def test_neighbours_score_as_loops_over_rows_do(name, users, pairs, monkeypatch):
    monkeypatch.setattr("seqcl.models.neighbours.PAIRS", pairs)
    kind, options = VARIANTS[name]
    own = {} if kind is SKNN else {"emphasis": 1.0, "fade": 1.0, "idf": 1.0}
    made = kind(TRAIN, rows=part(NearestRows, **{**own, **options}))
    whole = {"k": 100, "recent": 1000, "emphasis": 0.0, "fade": 0.0, "idf": 0.0, **own, **options}
    cosine = whole.pop("similarity", "cosine") == "cosine"
    latest = [TRAIN.times[end - 1] for end in TRAIN.ends]
    turns = np.argsort(np.argsort(-np.array(latest), kind="stable"))
    expected = [
        reference.session_knn(ROWS, turns, row, ITEMS, mine if users else None, cosine=cosine, **whole)
        for row, mine in zip(QUERIES, OWN, strict=True)
    ]
    found = made.scores(batch(users=users)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (found > 0).any(1).all()


def test_without_times_the_last_rows_are_the_most_recent():
    train = replace(TRAIN, times=None)
    found = SKNN(train, rows=part(NearestRows, recent=4, k=3)).scores(batch(users=False)).numpy()
    turns = range(len(ROWS))[::-1]
    options = {"k": 3, "recent": 4, "cosine": True, "emphasis": 0.0, "fade": 0.0, "idf": 0.0}
    expected = [reference.session_knn(ROWS, turns, row, ITEMS, None, **options) for row in QUERIES]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_bad_values_are_refused():
    for options in ({"k": 0}, {"recent": -1}, {"emphasis": -1.0}, {"fade": -1.0}, {"idf": -0.1}):
        with pytest.raises(UserError, match=next(iter(options))):
            SKNN(TRAIN, rows=part(NearestRows, **options))
    with pytest.raises(UserError, match="did you mean cosine"):
        SKNN(TRAIN, rows=part(NearestRows, similarity="cosin"))
    with pytest.raises(UserError, match="backoff"):
        Markov(TRAIN, next_items=part(transitions, backoff=0.0))


def test_options_are_chosen_on_validation(monkeypatch, capsys):
    words = ["--dataset", "markov", "--model", "SKNN", "--rows.k", "1,50", "--rows.similarity", "cosine,dot"]
    monkeypatch.setattr(sys, "argv", ["choose.py", *words])
    choose.main()
    *lines, last = capsys.readouterr().out.splitlines()
    figures = {line.partition("  ")[2].partition("  ")[0]: float(line.split()[0]) for line in lines}
    found = json.loads(last)
    assert len(figures) == 4 and figures[found["chosen"]] == max(figures.values()) > min(figures.values())
    experiment = choose.config.resolve(found["chosen"].split())
    split = experiment.data.split_windows(experiment.data.sequences("markov"))
    result = choose.rank(experiment.build(split.train), split, "valid", experiment.eval, torch.device("cpu"))
    assert result.metrics["ndcg@10"] == found["valid ndcg@10"]
    monkeypatch.setattr(sys, "argv", ["choose.py", "--dataset", "markov", "--model", "SASRec", "--train.lr", "0.1,0.2"])
    with pytest.raises(UserError, match="SASRec is trained, not counted"):
        choose.main()
