"""The same numbers on both sides: one split, one set of weights, ranked by RecBole and by us."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from seqcl.config import experiment
from seqcl.data import Loader, leave_one_out, load, markov, pack, write
from seqcl.evaluation import Evaluator
from tests.recbole_world import OWN_WARNINGS, QUIET, alone, recbole_or_skip

recbole_or_skip()
pytestmark = OWN_WARNINGS
__all__ = ["alone"]  # a fixture

THEIRS = {
    **QUIET,
    "user_inter_num_interval": "[5,inf)",
    "item_inter_num_interval": "[5,inf)",
    "MAX_ITEM_LIST_LENGTH": 20,
    "topk": [5, 10, 20],
    "metrics": ["Recall", "NDCG", "MRR"],
    "train_neg_sample_args": None,
    "hidden_size": 16,
    "inner_size": 32,
}
OURS = {
    "dataset": "ml-100k",
    "data": {"k_core": 5, "max_len": 20, "windows": "prefix"},
    "eval": {"exclude_seen": False},
}
NAMES = [f"{metric}@{k}" for metric in ("recall", "ndcg", "mrr") for k in (5, 10, 20)]


def split_by_recbole(folder, dataset, **values):
    """RecBole's 5-core of a data set: its configuration, and the loaders of training, validation and test."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["test"])
        patch.chdir(folder)
        config = Config(model="SASRec", dataset=dataset, config_dict={**THEIRS, **values})
        return config, data_preparation(config, create_dataset(config))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """ml-100k as `seqcl data convert` writes it, split by RecBole."""
    folder = tmp_path_factory.mktemp("recbole")
    write(load("ml-100k"), folder / "movies" / "movies.inter")
    columns = {"TIME_FIELD": "order", "load_col": {"inter": ["user_id", "item_id", "order"]}}
    return split_by_recbole(folder, "movies", data_path=str(folder), **columns)


@pytest.fixture(scope="module")
def ours():
    """Our ml-100k, 5-core, split."""
    config = experiment({"model": "SASRec", **OURS})
    preparation = config.data
    sequences = preparation.sequences("ml-100k")
    return sequences, preparation.split_windows(sequences)


def rows(dataset):
    """{user: (history, target)} of RecBole's evaluation rows, in raw ids."""
    feat = dataset.inter_feat
    users, targets = (dataset.id2token(field, feat[field].numpy()) for field in ("user_id", "item_id"))
    histories = (
        dataset.id2token("item_id", row[:size].numpy())
        for row, size in zip(feat["item_id_list"], feat["item_length"], strict=True)
    )
    return {
        int(user): ([int(item) for item in row], int(target))
        for user, row, target in zip(users, histories, targets, strict=True)
    }


def windows(sequences, part):
    """The same of ours."""
    raw = lambda items: sequences.item_ids[np.asarray(items) - 1].tolist()  # noqa: E731
    return {
        int(sequences.user_ids[user]): (raw(part.items[start:stop]), raw([part.items[stop]])[0])
        for user, start, stop in zip(part.users, part.start, part.stop, strict=True)
    }


def test_the_split_holds_the_same_items_for_every_user(theirs, ours):
    (_, loaders), (sequences, split) = theirs, ours
    for loader, part in zip(loaders[1:], (split.valid, split.test), strict=True):
        assert rows(loader.dataset) == windows(sequences, part)
    assert len(loaders[0].dataset) == len(split.train)


def test_recboles_own_file_differs_by_its_rounding_of_times_and_by_nothing_else(tmp_path, ours):
    _, loaders = split_by_recbole(tmp_path, "ml-100k")
    log = load("ml-100k")
    low, high = log.times.min(), log.times.max()
    rounded = ((log.times - low) / (high - low)).astype(np.float32).astype(np.float64)  # as RecBole holds them
    sequences = pack(replace(log, times=rounded), k_core=5)
    split = leave_one_out(sequences, max_len=20, windows="prefix")
    for loader, part, exact in zip(loaders[1:], (split.valid, split.test), (ours[1].valid, ours[1].test), strict=True):
        found = rows(loader.dataset)
        assert found == windows(sequences, part)
        other = windows(ours[0], exact)
        assert 0 < sum(found[user] != other[user] for user in other) < 0.05 * len(other)


def in_their_ids(sequences, dataset):
    """RecBole's id of each of our items 1..N: (N,)."""
    return torch.from_numpy(dataset.token2id("item_id", [str(raw) for raw in sequences.item_ids]))


def ranked(model, ours):
    """Our metrics of a model on test."""
    split = ours[1]
    evaluator = Evaluator(ks=(5, 10, 20), exclude_seen=False)
    batches = Loader(split.test, batch_size=256, targets="last")
    return evaluator(split.test, batches, model, split.train.item_counts(), lists=False).metrics


def test_weights_of_recboles_model_are_ranked_alike(alone, theirs, ours):
    from recbole.trainer import Trainer
    from recbole.utils import get_model

    (config, (train, _, test)), (sequences, split) = theirs, ours
    torch.manual_seed(0)
    model = get_model("SASRec")(config, train.dataset)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # as different as trained ones
    found = Trainer(config, model).evaluate(test, load_best_model=False)
    values = {
        "encoder": {"name": "recbole:SASRec", "hidden_size": 16, "inner_size": 32},
        "next_item": {"similarity": "dot", "temperature": 1},
    }
    mine = experiment({"model": "SASRec", **OURS, **values}).build(split.train)
    weights = model.state_dict()
    table, place = weights["item_embedding.weight"], in_their_ids(sequences, train.dataset)
    weights["item_embedding.weight"] = torch.cat((torch.zeros(1, 16), table[place], torch.zeros(1, 16)))
    mine.encoder.model.load_state_dict(weights)
    metrics = ranked(mine, ours)
    assert {name: metrics[name] for name in NAMES} == pytest.approx({name: found[name] for name in NAMES}, abs=1e-6)


def test_weights_of_our_recipe_are_ranked_alike(alone, theirs, ours):
    from recbole.trainer import Trainer

    from seqcl.integrations.recbole import CL4Rec

    (config, (train, _, test)), (sequences, split) = theirs, ours
    torch.manual_seed(0)
    config.final_config_dict["encoder.dim"] = 16
    model = CL4Rec(config, train.dataset)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    found = Trainer(config, model).evaluate(test, load_best_model=False)
    mine = experiment({"model": "CL4Rec", **OURS, "encoder": {"dim": 16}}).build(split.train)
    weights = model.recommender.state_dict()
    table, place = weights["encoder.table.weight"], in_their_ids(sequences, train.dataset)
    weights["encoder.table.weight"] = torch.cat((table[:1], table[place], table[-1:]))
    mine.load_state_dict(weights)
    metrics = ranked(mine, ours)
    assert {name: metrics[name] for name in NAMES} == pytest.approx({name: found[name] for name in NAMES}, abs=1e-6)


def test_recboles_keys_and_our_options_are_one_protocol(tmp_path, ours):
    import yaml

    from seqcl.config import resolve

    keys = ("user_inter_num_interval", "item_inter_num_interval", "MAX_ITEM_LIST_LENGTH", "topk", "metrics")
    (tmp_path / "recbole.yaml").write_text(yaml.safe_dump({"dataset": "ml-100k", **{key: THEIRS[key] for key in keys}}))
    config = resolve(["--recbole-config", str(tmp_path / "recbole.yaml")])
    expected = experiment({"model": "SASRec", **OURS})
    assert config.data.max_len == expected.data.max_len == 20
    assert config.eval.ks == (5, 10, 20) and config.eval.exclude_seen is expected.eval.exclude_seen is False
    assert config.data.sequences(config.options.dataset).fingerprint == ours[0].fingerprint


@pytest.mark.parametrize(("seeds", "gap"), [(1, None), (2, -2.0)])
def test_the_line_of_the_benchmark_is_json_with_one_seed_too(alone, monkeypatch, capsys, seeds, gap):
    from benchmarks import recbole_parity

    def row(better, seed):
        metrics = {"recall@10": 0.2, "ndcg@10": 0.1 + better + seed * 0.1, "mrr@10": 0.1}
        return {**metrics, "epochs": 1}

    # A deviation of 0.1 / sqrt(2) on each side, and means that are 0.1 * sqrt(2) apart.
    monkeypatch.setattr(recbole_parity, "recbole", lambda seed, epochs, folder: row(0.1 * 2**0.5, seed))
    monkeypatch.setattr(recbole_parity, "ours", lambda path, seed, epochs, folder, encoder: row(0.0, seed))
    path = write(markov(users=20, items=10, length=5, seed=0).interactions, alone / "log.txt")
    recbole_parity.compare(path, seeds, 1, ["recbole", "ours"], smoke=True)
    line = json.loads(capsys.readouterr().out.splitlines()[-1], parse_constant=pytest.fail)
    assert line["metrics"]["ndcg@10"]["gap_in_deviations"]["ours"] == (gap and pytest.approx(gap))
    assert len(line["rows"]["ours"]) == seeds
