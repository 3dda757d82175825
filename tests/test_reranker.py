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
            known = [
                [min(max(float(one), -5.0), 5.0) for one in (item - reranker.mean) / reranker.deviation]
                for item in features[row]
            ]
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


def memories_of(width, *, folds=3):
    """Memories of eight items with a reranker that has not learned."""
    form = {"size": 8, "width": width, "networks": folds}
    return Memories(num_items=8, size=2, recency={"a": 1.0}, gates=1, folds=folds, reranker=form)


def drawn(users, *, seed=0, width=4):
    """Rows whose target is the item of which one feature, as far from 1 as possible, says so: no straight line finds it."""
    features = torch.randn(users, 8, width, generator=torch.Generator().manual_seed(seed))
    features[:, :, 0] = 0
    targets = (features[:, :, 2] - 1).abs().argmin(1)
    features[:, :, 2] = 5 * features[:, :, 2] + 2
    flat, none = features.flatten(0, 1), torch.zeros(users, dtype=torch.long)
    barred = torch.zeros(users, 8, dtype=torch.bool)
    return Examples(features, barred, targets, none, torch.arange(users) % 3, flat.mean(0), flat.std(0))


def hits(reranker, known, fold):
    """The share of the rows of a group whose target its network puts first."""
    own = known.folds == fold
    added = judged(reranker.standard(known.features[own]), *reranker.weights(fold))
    return float((added.argmax(1) == known.targets[own]).float().mean())


def test_networks_learn_what_no_weights_can_and_find_nothing_where_chance_rules():
    known, memories = drawn(3000), memories_of(4)
    assert teach(memories, known)
    assert min(hits(memories.reranker, known, fold) for fold in range(3)) > 0.8  # a straight line has some .25
    chance = known._replace(targets=known.targets[torch.randperm(3000, generator=torch.Generator().manual_seed(1))])
    assert teach(memories, chance)
    assert max(hits(memories.reranker, chance, fold) for fold in range(3)) < 0.2  # of 1 / 8


def test_a_network_does_not_know_its_own_group_even_by_the_weights_of_memories():
    known, memories = drawn(300), memories_of(4)
    memories.mixture.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4])[:, None, None])
    teach(memories, known)
    before = [[one.clone() for one in memories.reranker.weights(network)] for network in range(3)]
    mean = memories.reranker.mean.clone()
    memories.mixture[[0, 2, 3]] = 1.0  # what was chosen with the targets of group 1
    own = known.folds == 1
    teach(memories, known._replace(targets=torch.where(own, 7 - known.targets, known.targets)))
    assert torch.equal(mean, memories.reranker.mean)
    for network, weights in enumerate(before):
        same = all(torch.equal(one, two) for one, two in zip(weights, memories.reranker.weights(network), strict=True))
        assert same == (network == 1)


def test_a_feature_that_is_always_the_same_is_left_out_and_what_is_far_off_is_drawn_near():
    known, memories = drawn(300), memories_of(4)
    known.features[:, :, 3] = 7.0
    flat = known.features.flatten(0, 1)
    teach(memories, known._replace(mean=flat.mean(0), deviation=flat.std(0, correction=0)))
    reranker = memories.reranker
    other = known.features.clone()
    other[:, :, 3] = -100.0
    assert torch.equal(reranker.judge(reranker.standard(known.features)), reranker.judge(reranker.standard(other)))
    other[:, :, 2] = 1e9
    assert float(reranker.standard(other).abs().max()) == 5.0


def test_nothing_is_learned_from_no_row_and_one_row_is_no_accident():
    known, memories = drawn(300), memories_of(4)
    none = Examples(*(one[:0] for one in known[:5]), known.mean, known.deviation)
    assert not teach(memories, none) and not bool(memories.reranker.last.any())
    one = Examples(*(part[:1] for part in known[:5]), known.features[0, 0], torch.zeros(4))
    assert teach(memories, one) and all(bool(part.isfinite().all()) for part in memories.reranker.buffers())


@pytest.mark.parametrize("users, rerank", [(12, 1), (12, 2), (3, 5)])
def test_a_blend_of_so_few_users_that_hardly_a_target_is_found_is_whole(tmp_path, users, rerank):
    log = shuffled(markov(users=users, items=30, length=6, branching=2, seed=1).interactions, seed=1)
    made = trained(tmp_path, log=log, blend=SMALL["blend"] | {"rerank": rerank})
    assert seqcl.load(made.folder).evaluate("test").metrics == made.metrics["test"]


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_examples_are_the_best_items_of_each_row_that_holds_its_target(run, exclude_seen, monkeypatch):
    model, split = run.model, run.split
    batches = queries_of(split.valid, run.experiment.eval, torch.device("cpu"))
    seen = Seen(split.valid, torch.device("cpu")).pairs if exclude_seen else None
    plain = model.memories.arguments() | {"reranker": {"size": 30, "width": width_of(2), "networks": 5}}
    memories = Memories(**plain)
    memories.load_state_dict(model.memories.state_dict(), strict=False)
    how = {"rows": 300, "seen": seen}
    found = examples(batches, model.network, memories, model.directions(), **how)
    assert len(found.targets) > 200 and found.features.shape[1:] == (30, width_of(2))
    assert bool(found.barred.any()) == exclude_seen  # all 30 items are among the best 30
    assert not bool(found.barred.gather(1, found.targets[:, None]).any())
    memories.mixture.add_(1.0)  # chosen by targets, so what is found must not depend on it
    again = examples(batches, model.network, memories, model.directions(), **how)
    assert all(torch.equal(one, two) for one, two in zip(found, again, strict=True))
    everything = torch.cat(
        [
            memories.facts(
                torch.arange(30).expand(len(one.items), -1),
                model.network(one),
                memories.features(one),
                one,
                model.directions(),
            )
            for one in batches
        ]
    )
    assert torch.allclose(found.mean, everything.double().mean((0, 1)).to(found.mean), atol=1e-4)
    assert torch.allclose(
        found.deviation, everything.double().flatten(0, 1).std(0).to(found.mean), rtol=1e-3, atol=1e-4
    )
    monkeypatch.setattr(reranking, "ITEMS", 3000)
    fewer = examples(batches, model.network, memories, model.directions(), **how)
    assert 50 < len(fewer.targets) <= 100 < len(found.targets)


def test_a_run_is_read_back_with_its_reranker_and_its_bundle_ranks_alike(tmp_path):
    run = trained(tmp_path / "runs", blend=WHOLE_ROW)
    again = seqcl.load(run.folder)
    assert again.model.memories.reranker.arguments() == {"size": 10, "width": width_of(1), "networks": 5}
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
    chance = trained(tmp_path / "chance", log=shuffled(LOG, seed=1))
    for one, pays in ((kept, True), (chance, False)):
        assert (one.model.memories.reranker is not None) == pays
        assert ("reranker" in Bundle(one.export(one.folder / "out", index="flat")).manifest["memories"]) == pays
        verdicts = {check.name: check for check in audit(one.folder, batches=1) if check.model == "Blend"}
        assert verdicts["choice of a blend"].verdict == "held", verdicts["choice of a blend"].told
        assert not [name for name, check in verdicts.items() if check.verdict == "broken"]
    with_it = kept.metrics["valid"]["ndcg@10"]
    kept.model.memories.reranker = None
    assert with_it > kept.evaluate("valid").metrics["ndcg@10"]


def other_sums(known):
    """Examples with other last bits, as another number of threads gives."""
    noise = torch.randn(known.features.shape, generator=torch.Generator().manual_seed(0))
    return known._replace(features=known.features * (1 + 1e-6 * noise))


def test_an_audit_finds_one_that_was_taught_on_test(tmp_path, monkeypatch):
    def verdict(folder):
        return next(check for check in audit(folder, batches=1) if check.name == "choice of a blend")

    run = trained(tmp_path / "clean", blend=WHOLE_ROW)
    with monkeypatch.context() as patch:
        batches = queries_of(run.split.test, run.experiment.eval, torch.device("cpu"))
        patch.setattr(blend, "examples", lambda _, *what, **how: examples(batches, *what, **how))
        leaked = trained(tmp_path / "leaked", blend=WHOLE_ROW)
    assert leaked.model.memories.reranker is not None
    assert verdict(run.folder).verdict == "held" and verdict(leaked.folder).verdict == "broken"
    assert "the reranker is another one" in verdict(leaked.folder).told
    monkeypatch.setattr(blend, "examples", lambda *what, **how: other_sums(examples(*what, **how)))
    assert verdict(run.folder).verdict == "broken"  # to the bit, with the run's number of threads
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
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
