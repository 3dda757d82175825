"""A reranker: its sums by hand, networks that never saw the user they rank, and a gain where there is something to learn."""

from __future__ import annotations

import math

import pytest
import torch

import seqcl
from seqcl.config import of_run
from seqcl.data import markov, shuffled
from seqcl.encoders import Memories
from seqcl.encoders.reranker import Reranker, judged, width_of
from seqcl.errors import UserError
from seqcl.evaluation.ranks import Seen
from seqcl.experiment.audit import audit
from seqcl.experiment.ranking import queries_of
from seqcl.models import blend, reranking
from seqcl.models.reranking import Examples, examples, teach
from seqcl.retrieval.bundle import Bundle
from seqcl.types import SeqBatch

LOG = markov(users=300, items=30, length=8, branching=2, seed=1).interactions
SMALL = {
    "encoder": {"dim": 8}, "eval": {"exclude_seen": False},
    "train": {"epochs": 2, "lr": 0.02, "warmup": 0, "batch_size": 16, "patience": 0},
    "blend": {"size": 12, "neighbours": 3, "rerank": 10, "memories": ["SLIST", "Markov"]},
}  # fmt: skip

WHOLE_ROW = SMALL["blend"] | {"memories": ["ItemKNN"]}
"""A memory to which all items of a row count alike, beside a weak network: a reranker learns to ask the newest item."""


def trained(folder, log=LOG, **options):
    return seqcl.train(log, model="Blend", runs=str(folder), progress=False, track="none", **SMALL | options)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs"))


def filled(reranker, seed=0):
    """A reranker with random weights."""
    generator = torch.Generator().manual_seed(seed)
    for one in reranker.buffers():
        one.copy_(torch.rand(one.shape, generator=generator) - 0.3)
    reranker.deviation.abs_().add_(0.1)
    return reranker


def by_hand(features, weights):
    """One network on the features of one item, number by number."""

    def silu(number):
        return number / (1 + math.exp(-number))

    first, bias, second, second_bias, last = (one.tolist() for one in weights)
    hidden = [silu(sum(f * first[i][j] for i, f in enumerate(features)) + bias[j]) for j in range(len(bias))]
    again = [silu(sum(h * second[i][j] for i, h in enumerate(hidden)) + second_bias[j]) for j in range(len(last))]
    return sum(a * b for a, b in zip(again, last, strict=True))


def test_the_best_of_a_row_get_what_the_networks_make_of_them_and_stay_ahead():
    reranker = filled(Reranker(num_items=9, size=3, width=4, networks=2))
    generator = torch.Generator().manual_seed(3)
    scores, features = torch.randn(5, 9, generator=generator), torch.randn(5, 3, 4, generator=generator)
    best = scores.topk(3).indices
    for networks in (None, torch.tensor([0, 1, 1, 0, 1])):
        found = reranker(scores, best, features, networks)
        for row in range(5):
            used = [0, 1] if networks is None else [int(networks[row])]
            known = ((features[row] - reranker.mean) / reranker.deviation).tolist()
            added = [sum(by_hand(one, reranker.weights(net)) for net in used) / len(used) for one in known]
            anew = [float(scores[row, place]) + more for place, more in zip(best[row].tolist(), added, strict=True)]
            lift = max(0.0, float(scores[row, best[row]].min()) - min(anew))
            assert found[row, best[row]].tolist() == pytest.approx([one + lift for one in anew], abs=1e-4)
            others = [place for place in range(9) if place not in best[row].tolist()]
            assert torch.equal(found[row, others], scores[row, others])
            assert float(found[row, best[row]].min()) >= float(found[row, others].max())


def test_features_are_what_they_are_called():
    memories = Memories(
        num_items=6, size=6, recency={"a": 2.0, "b": 0.0}, gates=1, folds=2,
        reranker={"size": 4, "width": width_of(2), "networks": 2},
    )  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    for one in memories.parts.values():
        one.fill(lambda batch: torch.rand(len(batch.items), 6, generator=generator))
    memories.reranker.counts.copy_(torch.arange(8) / 3)
    batch = SeqBatch(torch.tensor([[3, 5, 0], [2, 6, 4]]), torch.tensor([2, 3]), users=torch.arange(2))
    network, vectors = torch.randn(2, 6, generator=generator), torch.randn(6, 5, generator=generator)
    best = torch.tensor([[0, 2, 5, 1], [4, 3, 1, 0]])
    found = memories.facts(best, network, memories.features(batch), batch, vectors)
    for row, (newest, length) in enumerate([(5, 2), (4, 3)]):
        alone = SeqBatch(torch.tensor([[newest]]), torch.tensor([1]))
        logs = network[row].log_softmax(0)
        for place, column in enumerate(best[row].tolist()):
            expected = [
                float(logs[column]),
                *(math.log(1 + float(one(batch)[row, column]) / 1e-5) for one in memories.parts.values()),
                *(math.log(1 + float(one(alone)[0, column]) / 1e-5) for one in memories.parts.values()),
                (column + 1) / 3,
                float(torch.cosine_similarity(vectors[column], vectors[newest - 1], dim=0)),
                math.log(length),
                newest / 3,
            ]
            assert found[row, place].tolist() == pytest.approx(expected, abs=1e-4)


def drawn(users, *, seed=0):
    """Rows whose target is the item of which one feature, as far from 1 as possible, says so: no straight line finds it."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(users, 8, 3, generator=generator)
    targets = (features[:, :, 1] - 1).abs().argmin(1)
    return Examples(torch.zeros(users, 8), 5 * features + 2, targets, torch.arange(users) % 3)


def hits(reranker, known, fold):
    """The share of the rows of a group whose target its network puts first."""
    own = known.folds == fold
    added = judged(reranker.standard(known.features[own]), *reranker.weights(fold))
    return float(((known.scores[own] + added).argmax(1) == known.targets[own]).float().mean())


def test_networks_learn_what_no_weights_can_and_find_nothing_where_chance_rules():
    known = drawn(3000)
    reranker = Reranker(num_items=8, size=8, width=3, networks=3)
    teach(reranker, known)
    assert min(hits(reranker, known, fold) for fold in range(3)) > 0.6  # a straight line has some .25
    chance = known._replace(targets=known.targets[torch.randperm(3000, generator=torch.Generator().manual_seed(1))])
    teach(reranker, chance)
    assert max(hits(reranker, chance, fold) for fold in range(3)) < 0.2  # of 1 / 8


def test_a_network_does_not_know_its_own_group():
    known, reranker = drawn(300), Reranker(num_items=8, size=8, width=3, networks=3)
    teach(reranker, known)
    before = [one.clone() for one in reranker.weights(1)]
    others = [one.clone() for one in reranker.weights(0)]
    own = known.folds == 1
    teach(reranker, known._replace(targets=torch.where(own, 7 - known.targets, known.targets)))
    assert all(torch.equal(one, two) for one, two in zip(before, reranker.weights(1), strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(others, reranker.weights(0), strict=True))


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_examples_are_the_best_items_of_each_row_that_holds_its_target(run, exclude_seen, monkeypatch):
    model, split = run.model, run.split
    batches = queries_of(split.valid, run.experiment.eval, torch.device("cpu"))
    seen = Seen(split.valid, torch.device("cpu")).pairs if exclude_seen else None
    how = {"rows": 300, "seen": seen}
    found = examples(batches, model.network, model.memories, model.directions(), **how)
    assert len(found.targets) > 100
    assert bool((found.scores.diff(dim=1) <= 0).all()) and found.features.shape[1:] == (10, width_of(2))
    at_target = found.scores.gather(1, found.targets[:, None])
    assert bool(at_target.isfinite().all()) and bool((found.folds < 5).all())
    monkeypatch.setattr(reranking, "ROWS", 100)
    fewer = examples(batches, model.network, model.memories, model.directions(), **how)
    assert 30 < len(fewer.targets) <= 100 < len(found.targets)


def test_a_run_is_read_back_with_its_reranker_and_its_bundle_ranks_alike(run, tmp_path):
    again = seqcl.load(run.folder)
    assert again.model.memories.reranker.arguments() == {"size": 10, "width": width_of(2), "networks": 5}
    again.model.memories.reranker.last.add_(torch.randn(5, 32, generator=torch.Generator().manual_seed(0)))
    for part in ("valid", "test"):
        assert again.evaluate(part).metrics != run.metrics[part]
        assert seqcl.load(run.folder).evaluate(part).metrics == run.metrics[part]
    bundle = Bundle(again.export(tmp_path / "out", index="flat"), check=True)
    ids = run.sequences.item_ids
    for history in ([3], [5, 9], [1, 2, 3, 4, 5, 6, 7, 3]):
        raw = [ids[item - 1] for item in history]
        ours, theirs = (one.recommend(items=raw, k=7, exclude_seen=True) for one in (again, bundle))
        assert [item for item, _ in ours] == [item for item, _ in theirs]
        assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=1e-4)


def test_it_is_kept_only_where_it_pays_and_an_audit_makes_it_anew(tmp_path):
    kept = trained(tmp_path / "chain", blend=WHOLE_ROW)
    assert bool(kept.model.memories.reranker.last.any())
    chance = trained(tmp_path / "chance", log=shuffled(LOG, seed=0))
    for one in (kept, chance):
        weights = one.model.memories.reranker.last
        with_it = one.metrics["valid"]["ndcg@10"]
        before = weights.clone()
        weights.zero_()
        without = one.evaluate("valid").metrics["ndcg@10"]
        assert with_it >= without and bool(before.any()) == (with_it > without)
        verdicts = {check.name: check for check in audit(one.folder, batches=1) if check.model == "Blend"}
        assert verdicts["choice of a blend"].verdict == "held", verdicts["choice of a blend"].told
        assert not [name for name, check in verdicts.items() if check.verdict == "broken"]


def test_an_audit_finds_one_that_was_taught_on_test(tmp_path, monkeypatch):
    def verdict(folder):
        return next(check for check in audit(folder, batches=1) if check.name == "choice of a blend")

    run = trained(tmp_path / "clean", blend=WHOLE_ROW)
    with monkeypatch.context() as patch:
        batches = queries_of(run.split.test, run.experiment.eval, torch.device("cpu"))
        patch.setattr(blend, "examples", lambda _, *what, **how: examples(batches, *what, **how))
        leaked = trained(tmp_path / "leaked", blend=WHOLE_ROW)
    assert bool(leaked.model.memories.reranker.last.any())
    assert verdict(run.folder).verdict == "held" and verdict(leaked.folder).verdict == "broken"
    assert "the reranker is another one" in verdict(leaked.folder).told
    monkeypatch.setattr(
        torch, "get_num_threads", lambda: 77
    )  # sums have other last bits, so rerankers are compared by what they say
    assert verdict(run.folder).verdict == "held" and verdict(leaked.folder).verdict == "broken"


def test_a_run_of_before_is_read_without_one(run, tmp_path):
    config = run.folder / "config.yaml"
    older = tmp_path / "older"
    older.mkdir()
    (older / "config.yaml").write_text(
        "".join(line for line in config.read_text().splitlines(True) if "rerank" not in line)
    )
    assert of_run(run.folder).flat["blend.rerank"] == 10 and of_run(older).flat["blend.rerank"] == 0


def test_a_negative_number_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(UserError, match="rerank"):
        trained(tmp_path / "runs", blend={"rerank": -1})
    assert not (tmp_path / "runs").exists()
