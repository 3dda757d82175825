"""A blend: memories by hand, weights that never saw the user they rank, a run that is whole, and a bundle that answers as it does."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import seqcl
from seqcl.cli.main import main
from seqcl.config import of_run, resolve
from seqcl.data import Preparation, leave_one_out, markov, shuffled
from seqcl.encoders import Memories, Memory
from seqcl.errors import UserError
from seqcl.evaluation import row_metric
from seqcl.evaluation.ranks import Seen
from seqcl.experiment import answers, blended, histories
from seqcl.experiment.audit import audit, blends
from seqcl.experiment.finished import Finished
from seqcl.experiment.job import Job
from seqcl.experiment.keeping import stored_metrics
from seqcl.experiment.lists import write_lists
from seqcl.experiment.ranking import queries_of, rank
from seqcl.models import Blend, blend, mixture
from seqcl.models.ease import EASE
from seqcl.models.slist import SLIST
from seqcl.parts import part
from seqcl.retrieval.bundle import Bundle
from seqcl.training import Interrupted, load_checkpoint, save_checkpoint
from seqcl.types import SeqBatch

LOG = markov(users=120, items=30, length=8, branching=2, seed=1).interactions
SMALL = {
    "encoder": {"dim": 8}, "eval": {"exclude_seen": False},
    "train": {"epochs": 2, "lr": 0.02, "warmup": 0, "batch_size": 16, "patience": 0},
    "blend": {"size": 12, "neighbours": 3},
}  # fmt: skip


def trained(folder, log=LOG, **options):
    """A run of two epochs."""
    return seqcl.train(log, model="Blend", runs=str(folder), progress=False, **SMALL | options)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs"))


def some_batch(rows=6, items=30, length=7):
    """Rows with repeats, and padding behind most of them."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, items + 1, (rows, length), generator=generator)
    ids[:, 3] = ids[:, 1]
    lengths = torch.tensor([7, 1, 5, 4, 2, 6])[:rows]
    return SeqBatch(ids * (torch.arange(length) < lengths[:, None]), lengths, users=torch.arange(rows))


def shares_by_hand(memory, row):
    """What a row of ids recalls, item by item."""
    sums = np.zeros(memory.num_items + 1)
    for item in set(row):
        age = row[::-1].index(item)  # of its newest place
        weight = math.exp(-age / memory.recency) if memory.recency else 1.0
        for other, own in zip(memory.items[item].tolist(), memory.weights[item].tolist(), strict=True):
            sums[other] += weight * own
    return sums[1:] / sums.sum()


@pytest.mark.parametrize("recency", [0.0, 2.0])
def test_a_memory_recalls_the_decayed_sum_of_its_largest_weights(recency):
    table = torch.rand(30, 30, generator=torch.Generator().manual_seed(1)) - 0.3
    memory = Memory(num_items=30, size=5, recency=recency)
    memory.fill(lambda batch: table[batch.items[:, 0] - 1])
    best = table[11].clamp(min=0).topk(5)
    assert memory.items[12].tolist() == (best.indices + 1).tolist()
    batch = some_batch()
    found = memory(batch)
    for row, length, shares in zip(batch.items.tolist(), batch.lengths.tolist(), found, strict=True):
        assert shares.numpy() == pytest.approx(shares_by_hand(memory, row[:length]), abs=1e-6)
    assert not memory(SeqBatch(torch.zeros(1, 2, dtype=torch.long), torch.tensor([2]))).any()


@pytest.mark.parametrize("kind, weights", [(SLIST, {"recency": 2.0}), (EASE, {"recency": 1.0})])
def test_a_memory_that_keeps_all_weights_has_the_shares_of_its_model(kind, weights):
    train = leave_one_out(Preparation().sequences(LOG)).train
    own = dict(kind.weights.options) | weights
    model = kind(train, weights=part(kind.weights.component, **own))
    memory = Memory(num_items=30, size=30, recency=own["recency"])
    memory.fill(model.scores)
    row = SeqBatch(torch.tensor([[4]]), torch.tensor([1]))  # of one item: no weight below zero is left out of a sum
    scores = model.scores(row).clamp(min=0)
    assert torch.allclose(memory(row), scores / scores.sum(), atol=1e-6)


def test_a_bonus_ranks_as_the_log_of_the_share_does():
    memories = Memories(num_items=30, size=8, recency={"a": 2.0, "b": 0.0}, gates=2, folds=3)
    generator = torch.Generator().manual_seed(2)
    for one in memories.parts.values():
        one.fill(lambda batch: torch.rand(len(batch.items), 30, generator=generator))
    memories.kinds.copy_(torch.arange(32) % 2)
    memories.mixture.copy_(torch.rand(4, 2, 2, generator=generator))
    batch = some_batch()
    network = torch.randn(6, 30, generator=generator)
    for held_out in (False, True):
        found = memories(network, batch, torch.eye(30), held_out=held_out)
        for row in range(6):
            fold = row % 3 if held_out else 3
            weights = memories.mixture[fold, int(batch.items[row, batch.lengths[row] - 1]) % 2]
            logs = [torch.log(one(batch)[row] + 1e-5) for one in memories.parts.values()]
            plain = network[row].log_softmax(0) + weights[0] * logs[0] + weights[1] * logs[1]
            assert torch.allclose(found[row] - found[row].mean(), plain - plain.mean(), atol=1e-4)


def test_vectors_move_towards_the_items_before_them_and_stay_as_long():
    memory = Memory(num_items=4, size=3, recency=1.0)
    memory.items[1:5] = torch.tensor([[2, 3, 4], [2, 1, 3], [1, 2, 4], [1, 2, 3]])
    memory.weights[1:5] = torch.tensor([[3.0, 2, 0], [9, 4, 2], [1, 1, 0], [2, 0, 0]])
    vectors = torch.eye(4) * 2
    found = blend.mean_before(vectors, memory, 2)
    expected = [
        [0, 4 / 3, 0, 2 / 3],
        [3 / 2, 0, 1 / 2, 0],
        [1, 1, 0, 0],
        [0, 0, 0, 2],
    ]  # none is before itself, or none is
    assert found.flatten().tolist() == pytest.approx([one for row in expected for one in row])
    biased = torch.cat((vectors, torch.tensor([[5.0], [6], [7], [8]])), 1)
    after = blend.moved(biased, found, 0.3)
    assert torch.equal(after[:, 4], biased[:, 4]) and torch.allclose(after[:, :4].norm(dim=1), torch.tensor(2.0))
    assert torch.allclose(after[0, :4] / after[0, 0], torch.tensor([1.0, 0.2 / 0.7, 0, 0.1 / 0.7]), atol=1e-5)


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_candidates_have_the_ranks_of_a_full_ranking(tmp_path, exclude_seen):
    """Rows are cut to four items; the evaluator excludes all earlier items of a user."""
    plain = SMALL["blend"] | {"rerank": 0}
    run = trained(tmp_path, data={"max_len": 4}, eval={"exclude_seen": exclude_seen}, blend=plain)
    model, evaluator = run.model, run.experiment.eval
    batches = queries_of(run.split.valid, evaluator, torch.device("cpu"))
    seen = Seen(run.split.valid, torch.device("cpu")).pairs if exclude_seen else None
    found = mixture.ranks_of(batches, model.network, model.memories, seen=seen)
    kept = model.memories.mixture.clone()
    for place in (0, 9, len(mixture.mixtures(2)) - 1):
        model.memories.mixture[:] = mixture.mixtures(2)[place]
        assert np.array_equal(
            rank(model, run.split, "valid", evaluator, torch.device("cpu")).ranks, found.ranks[:, place]
        )
    model.memories.mixture.copy_(kept)


def test_the_weights_of_a_fold_are_the_best_of_all_other_users():
    memories = Memories(num_items=9, size=3, recency={"a": 1.0}, gates=2, folds=3)
    random = np.random.default_rng(0)
    ranks = random.integers(1, 30, (60, len(mixture.GRID)))
    found = mixture.Ranks(ranks, random.integers(0, 2, 60), np.arange(60) % 3)

    def gain(ranks):
        return row_metric("ndcg@10", ranks)

    mixture.choose(found, gain, memories)
    for fold in range(4):
        for kind in range(2):
            rows = [user for user in range(60) if user % 3 != fold and found.kinds[user] == kind]
            means = [gain(ranks[rows, place]).mean() for place in range(len(mixture.GRID))]
            assert float(memories.mixture[fold, kind, 0]) == pytest.approx(mixture.GRID[int(np.argmax(means))])
    before = memories.mixture.clone()
    own = found.folds == 1
    mixture.choose(found._replace(ranks=np.where(own[:, None], ranks[:, ::-1], ranks)), gain, memories)
    assert torch.equal(memories.mixture[1], before[1]) and not torch.equal(memories.mixture, before)


def test_a_run_is_read_back_and_its_validation_is_the_one_without_the_own_user(run):
    again = seqcl.load(run.folder)
    for part_ in ("valid", "test"):
        assert again.evaluate(part_).metrics == run.metrics[part_]
    model = again.model
    assert model.vectors() is None and float(model.memories.mixture.max()) > 0
    mixed = model.memories.mixture.clone()
    model.memories.mixture[:-1] = 0  # those of the folds
    assert again.evaluate("test").metrics == run.metrics["test"]
    assert again.evaluate("valid").metrics != run.metrics["valid"]
    model.memories.mixture.copy_(mixed)


@pytest.mark.parametrize("memories", [["SLIST", "EASE"], ["ItemKNN", "Markov"], []])
def test_a_bundle_answers_as_the_run_does(tmp_path, memories):
    run = trained(tmp_path, blend=SMALL["blend"] | {"memories": memories})
    bundle = Bundle(run.export(tmp_path / "out", index="flat"), check=True)
    assert (bundle.memories is None) == (not memories)
    assert bundle.manifest["format"] == ("seqcl-bundle-3" if memories else "seqcl-bundle-2")
    ids = run.sequences.item_ids
    for history in ([3], [5, 9], [1, 2, 3, 4, 5, 6, 7, 3]):
        raw = [ids[item - 1] for item in history]
        for seen in (True, False):
            ours, theirs = (one.recommend(items=raw, k=7, exclude_seen=seen) for one in (run, bundle))
            assert [item for item, _ in ours] == [item for item, _ in theirs]
            assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=1e-5)
    listed = [answers.of_run(run), answers.of_bundle(bundle)]
    whose = histories.of_log(run.sequences)
    files = [write_lists(one, whose, tmp_path / f"{n}.csv", k=5, exclude_seen=True, progress=False) for n, one in enumerate(listed)]  # fmt: skip
    lines = [(tmp_path / f"{n}.csv").read_text().splitlines() for n in range(len(files))]
    same = sum(one.split(",")[:3] == two.split(",")[:3] for one, two in zip(*lines, strict=True))
    assert same > 0.99 * len(lines[0])  # but for ties
    if memories:
        with pytest.raises(UserError, match="memories of this bundle score all items"):
            answers.of_bundle(bundle, search="index")


def test_a_bundle_with_another_memory_is_refused(tmp_path, run):
    folder = run.export(tmp_path / "out", index="flat")
    file = folder / "memories.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(UserError, match=r"memories\.safetensors is not the file that was exported"):
        Bundle(folder)
    file.unlink()
    with pytest.raises(UserError, match=r"memories\.safetensors is missing"):
        Bundle(folder)


def test_a_run_that_was_killed_between_training_and_choice_goes_on_to_the_same(tmp_path, run, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Job, "settle", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        trained(tmp_path)
    (folder,) = tmp_path.iterdir()
    with pytest.raises(UserError, match=r"no checkpoint at .*blend\.safetensors"):
        seqcl.load(folder)
    assert main(["train", "--resume", str(folder)]) == 0
    again = json.loads((folder / "metrics.json").read_text())
    assert again["test"] == run.metrics["test"] and again["valid"] == run.metrics["valid"]
    file = folder / "checkpoints" / "blend.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(UserError, match=r"blend\.safetensors is not as it was written .* delete it and go on with"):
        seqcl.load(folder)


def test_a_network_that_is_trained_further_gets_memories_of_its_own(tmp_path, run, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    assert main(["train", "--resume", str(folder), "--train.epochs", "6"]) == 0
    assert blended.network_of(folder) != blended.network_of(run.folder)
    further = seqcl.load(folder)
    assert json.loads((folder / "metrics.json").read_text())["valid"] == further.evaluate("valid").metrics
    kept = {name: one.clone() for name, one in further.model.settled().items()}
    with blends.network_alone(further.model):
        made = {name: further.model.count(name) for name in further.model.remembered()}
        blended.settle(further.model, made, further.experiment, further.split, further.device)
        anew = further.model.settled()
    assert kept.keys() == anew.keys() and all(torch.equal(one, anew[name]) for name, one in kept.items())
    with monkeypatch.context() as patch:  # with the same weights nothing is made anew
        patch.setattr(Job, "say", lambda _, what: pytest.fail(what))
        assert main(["train", "--resume", str(folder)]) == 0


def test_other_memories_are_put_beside_the_same_network_as_if_asked_for_at_first(tmp_path, run):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    file = folder / "checkpoints" / "blend.safetensors"
    words = ["--slist.recency", "3", "--ease.ridge", "20", "--blend.size", "9"]
    with pytest.raises(
        UserError, match=r"encoder\.dim was 8 and cannot become 4; .* train\.save_minutes, blend\.\*, slist\.\*"
    ):
        of_run(folder, ["--encoder.dim", "4"])
    assert main(["train", "--resume", str(folder), *words]) == 0
    assert blended.network_of(folder) == blended.network_of(run.folder)
    whole = trained(
        tmp_path / "whole", slist={"recency": 3.0}, ease={"ridge": 20.0}, blend=SMALL["blend"] | {"size": 9}
    )
    one, other = (load_checkpoint(place)[0] for place in (file, blended.kept_in(whole.folder)))
    assert one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert json.loads((folder / "metrics.json").read_text())["test"] == whole.metrics["test"] != run.metrics["test"]
    tensors, state = load_checkpoint(file)
    save_checkpoint(file, tensors, state | {"options": state["options"] | {"slist.recency": 2.0}})
    with pytest.raises(
        UserError, match=r"made with slist\.recency 2\.0, and config\.yaml has 3\.0; go on with --resume"
    ):
        seqcl.load(folder)
    save_checkpoint(file, tensors, state | {"options": {}})  # options that are newer than a file are none of its own
    assert seqcl.load(folder).evaluate().metrics == whole.metrics["test"]


def test_figures_of_the_memories_before_are_not_taken_for_those_of_a_choice_that_was_stopped(
    tmp_path, run, monkeypatch, caplog
):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    before = (folder / "config.yaml").read_text()
    assert main(["train", "--resume", str(folder), "--blend.memories", "[Markov]", "--slist.ridge", "-1"]) == 2
    assert (folder / "config.yaml").read_text() == before and Finished.read(folder).metrics == run.metrics["test"]
    with monkeypatch.context() as patch:
        patch.setattr(Job, "settle", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(["train", "--resume", str(folder), "--blend.memories", "[Markov]"]) == 130
    with pytest.raises(UserError, match=r"went on under another configuration and has not ended; go on with: --resume"):
        Finished.read(folder)
    assert stored_metrics(folder / "metrics.json") == {}
    assert "is of the configuration before the run went on" in caplog.text
    assert main(["train", "--resume", str(folder)]) == 0
    assert [*Finished.read(folder).options["blend.memories"]] == ["Markov"] and Finished.read(
        folder
    ).metrics != run.metrics["test"]
    assert main(["train", "--resume", str(folder), "--train.epochs", "3"]) == 0  # under other options again, to its end
    assert Finished.read(folder).options["train.epochs"] == 3


def test_an_option_of_a_memory_that_the_blend_does_not_have_is_refused(run, capsys):
    words = ["--dataset", "markov", "--model", "Blend", "--blend.memories", "[EASE]"]
    with pytest.raises(
        UserError, match=r"--markov.backoff 2: is of a memory .* give --blend.memories \[EASE,Markov\]$"
    ):
        resolve([*words, "--markov.backoff", "2"])
    with pytest.raises(UserError, match=r"\[EASE,SLIST\], or --blend.neighbours above 0$"):
        resolve([*words, "--blend.neighbours", "0", "--slist.recency", "1"])
    with pytest.raises(UserError, match=r"\[SLIST,EASE,Markov\]$"):  # three at most
        resolve([*words[:-1], "[SLIST,EASE,ItemKNN]", "--markov.backoff", "2"])
    resolve([*words, "--slist.recency", "1"])  # vectors are moved by it
    before = (run.folder / "config.yaml").read_text()
    assert main(["train", "--resume", str(run.folder), "--itemknn.top_k", "7"]) == 2
    assert "--itemknn.top_k 7: is of a memory that this blend does not have" in capsys.readouterr().err
    assert (run.folder / "config.yaml").read_text() == before


def test_memories_without_brackets_are_told_with_them():
    with pytest.raises(UserError, match=r"expected values in brackets such as \[SLIST,EASE\], not SLIST,EASE$"):
        resolve(["--model", "Blend", "--blend.memories", "SLIST,EASE"])
    told = resolve(["--model", "Blend", "--blend.memories", "[SLIST,EASE]"])
    assert told.recipe.parts["blend"].options["memories"] == ("SLIST", "EASE")


def test_memories_of_another_network_are_refused_and_those_that_do_not_say_are_read(tmp_path, run):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    file = folder / "checkpoints" / "blend.safetensors"
    tensors, state = load_checkpoint(file)
    before = answers.of_run(seqcl.load(folder)).about["model"]
    save_checkpoint(file, tensors, {name: value for name, value in state.items() if name != "network"})
    assert seqcl.load(folder).evaluate().metrics == run.metrics["test"]
    assert answers.of_run(seqcl.load(folder)).about["model"] != before  # lists of a blend are of this file
    save_checkpoint(file, tensors, state | {"network": "of another"})
    with pytest.raises(UserError, match=r"made for other weights of the network .* go on with --resume"):
        seqcl.load(folder)


def verdicts(folder):
    return {check.name: check for check in audit(folder, batches=1) if check.model == "Blend"}


def with_other_bits(count):
    def counted(*arguments):
        made = count(*arguments)
        for memory in made.values():
            memory.weights *= 1 + 1e-6
        return made

    return counted


def test_a_clean_blend_holds_and_one_that_saw_more_is_broken(tmp_path, run, monkeypatch):
    found = verdicts(run.folder)
    assert not [name for name, check in found.items() if check.verdict == "broken"]
    for name in ("memories", "choice of a blend", "choice of weights", "test ranks"):
        assert found[name].verdict == "held", found[name].told
    with monkeypatch.context() as patch:
        count = Blend.count

        def leaky(self, name):
            own = self.train_windows
            self.train_windows = replace(own, ends=own.offsets[1:])
            made = count(self, name)
            self.train_windows = own
            return made

        patch.setattr(Blend, "count", leaky)
        leaked = trained(tmp_path / "count")
    found = verdicts(leaked.folder)
    assert found["memories"].verdict == "broken" and "the memory SLIST is another one" in found["memories"].told
    with monkeypatch.context() as patch:  # with another number of threads sums have other last bits
        patch.setattr(blends, "count_on_twin", with_other_bits(blends.count_on_twin))
        assert verdicts(run.folder)["memories"].verdict == "broken"
        patch.setattr(torch, "get_num_threads", lambda: 77)
        found = verdicts(run.folder)
        assert found["memories"].verdict == found["choice of a blend"].verdict == "held", found[
            "choice of a blend"
        ].told
        assert verdicts(leaked.folder)["memories"].verdict == "broken"
    with monkeypatch.context() as patch:
        test = run.split.test
        patch.setattr(blended, "queries_of", lambda _, *how: queries_of(test, *how))  # weights are chosen there
        leaked = trained(tmp_path / "choice", log=shuffled(LOG, seed=0))  # where chance alone chooses
    found = verdicts(leaked.folder)
    assert found["memories"].verdict == "held" and found["choice of a blend"].verdict == "broken"


@pytest.mark.parametrize(
    "values, said",
    [
        ({"memories": ["SLITS"]}, "unknown memory in --blend.memories 'SLITS': did you mean SLIST"),
        ({"memories": ["EASE", "EASE"]}, "up to 3, each once"),
        ({"size": 0}, "--blend.size 0: must be 1 or more"),
        ({"folds": 1}, "--blend.folds 1: must be 2 or more"),
        ({"gates": 0}, "--blend.gates 0: must be 1 or more"),
        ({"neighbours": -1}, "neighbours"),
    ],
)
def test_a_blend_that_cannot_be_says_so_before_anything_is_trained(tmp_path, values, said):
    with pytest.raises(UserError, match=said):
        trained(tmp_path / "runs", blend=values)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "memory, option, value, said",
    [
        ("SLIST", "ridge", -1.0, "above 0"),
        ("SLIST", "decay", 0.0, "above 0"),
        ("SLIST", "recency", -1.0, "0 or more"),
        ("EASE", "likeness", 3.0, "from 0 to 1"),
        ("EASE", "rank", -1, "0 or more"),
        ("ItemKNN", "top_k", 0, "1 or more"),
        ("Markov", "backoff", 0.0, "above 0"),
    ],
)
def test_a_memory_that_cannot_be_says_so_before_anything_is_trained(tmp_path, memory, option, value, said):
    section = memory.lower()
    with pytest.raises(UserError, match=rf"{section}\.{option} must be {said}, not {value}"):
        trained(tmp_path / "runs", blend={"memories": [memory]}, **{section: {option: value}})
    assert not (tmp_path / "runs").exists()


def test_a_catalogue_with_too_many_pairs_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("seqcl.models.linear.DENSE", 20)
    with pytest.raises(UserError, match=r"too many pairs .* give slist\.rank, such as 512"):
        trained(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    ranks = {"slist": {"rank": 8}, "ease": {"rank": 8}}
    with pytest.raises(UserError, match=r"give slist\.rank"):
        trained(tmp_path / "runs", ease={"rank": 8})
    assert trained(tmp_path / "runs", **ranks).metrics["test"]["ndcg@10"] > 0
