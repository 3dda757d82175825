"""An ensemble: the mean score of its networks, each of which learns as it would alone, in one model that is kept and exported whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seqcl
from seqcl.config import experiment
from seqcl.data import markov
from seqcl.encoders import Several
from seqcl.errors import UserError
from seqcl.experiment.warm import check_options
from seqcl.retrieval.bundle import Bundle
from seqcl.testing.models import begun, tiny
from seqcl.training import check_compile
from seqcl.types import SeqBatch

LOG = markov(users=80, items=30, length=8, branching=2, seed=1).interactions
SMALL = {
    "encoder": {"dim": 8}, "eval": {"exclude_seen": False}, "track": "none",
    "train": {"epochs": 2, "lr": 0.02, "warmup": 0, "batch_size": 16, "patience": 0},
}  # fmt: skip
HOW = [
    {"similarity": "cosine", "temperature": 0.2, "bias": True},
    {"similarity": "dot", "temperature": 1.5},
    {"similarity": "dot", "bias": True},
]


def rows(items: int) -> SeqBatch:
    """Six rows of one to seven items."""
    ids = torch.randint(1, items + 1, (6, 7), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([7, 1, 5, 4, 2, 6])
    return SeqBatch(ids * (torch.arange(7) < lengths[:, None]), lengths, users=torch.arange(6))


def one_of(whole, number, **options):
    """A model of one network, with the weights that a member of an ensemble has."""
    alone, _ = begun(tiny("Ensemble", **options, ensemble={"networks": 1}))
    alone.encoder.load_state_dict(whole.encoder.each()[number].state_dict())
    if alone.objective.scoring.biased:
        alone.objective.scoring.bias.data.copy_(whole.objective.scoring.bias.data)
    return alone


@pytest.mark.parametrize("next_item", HOW)
def test_a_score_is_the_mean_of_what_each_network_scores_alone(next_item):
    options = {"next_item": next_item, "encoder": {"dropout": 0.0}}
    whole, _ = begun(tiny("Ensemble", **options, ensemble={"networks": 3}))
    whole.eval()
    for one in whole.encoder.each():  # of other lengths, so that a cosine of the whole would be no mean
        one.item_embeddings().data.mul_(torch.rand(()) + 0.5)
    if next_item.get("bias"):
        torch.nn.init.normal_(whole.objective.scoring.bias)
    batch = rows(whole.encoder.num_items)
    alone = [one_of(whole, number, **options).eval().scores(batch) for number in range(3)]
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)
    torch.testing.assert_close(whole.scores(batch), torch.stack(alone).mean(0), atol=1e-5, rtol=1e-5)
    states = whole.encoder(batch)[torch.arange(6), batch.lengths - 1]
    torch.testing.assert_close(states, whole.encoder.last(batch), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.cat(list(whole.vector_pieces())), whole.vectors())


@pytest.mark.parametrize("next_item", HOW)
def test_each_network_learns_what_it_would_learn_alone(next_item):
    options = {"next_item": next_item, "encoder": {"dropout": 0.0}}
    whole, loader = begun(tiny("Ensemble", **options))
    batch = next(iter(loader))
    term = whole(batch)["next_item"]
    term.backward()
    terms = []
    for number, member in enumerate(whole.encoder.each()):
        alone = one_of(whole, number, **options)
        terms.append(alone(batch)["next_item"])
        terms[-1].backward()
        found = dict(member.named_parameters())
        for name, weight in alone.encoder.named_parameters():
            torch.testing.assert_close(2 * found[name].grad, weight.grad, atol=1e-6, rtol=1e-4)
    assert terms[0].item() != terms[1].item()
    torch.testing.assert_close(term, torch.stack(terms).mean())


def test_one_network_is_the_plain_recipe_to_the_bit(tmp_path):
    runs = [
        seqcl.train(LOG, model=model, runs=str(tmp_path), progress=False, **SMALL, **options)
        for model, options in (("SASRec", {}), ("Ensemble", {"ensemble": {"networks": 1}}))
    ]
    plain, one = (run.model.state_dict() for run in runs)
    assert plain.keys() == one.keys() and all(torch.equal(plain[name], one[name]) for name in plain)


@pytest.mark.parametrize("model", ["Ensemble", "Blend"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_run_that_is_read_back_and_its_bundle_answer_alike(tmp_path, model, bias):
    options = {"ensemble": {"networks": 2}, "next_item": {"bias": bias}}
    if model == "Blend":
        options["blend"] = {"size": 12, "neighbours": 3}
    run = seqcl.train(LOG, model=model, runs=str(tmp_path), progress=False, **SMALL, **options)
    assert isinstance(run.model.encoder, Several)
    again = seqcl.load(run.folder)
    users = run.sequences.user_ids[:5].tolist()
    wanted = run.recommend_many(users=users, k=5)
    assert again.recommend_many(users=users, k=5) == wanted
    bundle = Bundle(run.export(tmp_path / "bundle", index="flat"), check=True)
    rows = [run.sequences.items[start:stop] for start, stop in zip(run.sequences.offsets, run.sequences.offsets[1:5])]  # noqa: B905
    histories = [np.asarray(run.sequences.item_ids)[row - 1].tolist() for row in rows]
    for history, plain in zip(histories, wanted, strict=False):
        found = bundle.recommend(history, k=5)
        assert [item for item, _ in found] == [item for item, _ in plain]
        np.testing.assert_allclose([score for _, score in found], [score for _, score in plain], rtol=1e-4, atol=1e-5)


def test_what_an_ensemble_cannot_be_is_refused():
    with pytest.raises(UserError, match=r"ensemble\.networks 0: must be 1 or more"):
        tiny("Ensemble", ensemble={"networks": 0}).build(begun(tiny("SASRec"))[1].windows)
    with pytest.raises(UserError, match=r"teach one network.*give --ensemble\.networks 1, not 2"):
        begun(tiny("Ensemble", distil={"teachers": "SLIST"}))
    several = begun(tiny("Ensemble", encoder={"name": "GRU"}))[0].encoder
    with pytest.raises(UserError, match=r"train\.compile: the encoder GRU has shapes"):
        check_compile(several)


def test_a_start_from_another_number_of_networks_is_refused_with_both_named():
    two, three, one = (
        experiment(options)
        for options in ({"model": "Ensemble"}, {"model": "Blend", "ensemble": {"networks": 3}}, {"model": "SASRec"})
    )
    with pytest.raises(UserError, match=r"it has 2 networks, and this run 3; give --ensemble\.networks 2$"):
        check_options(two, three)
    with pytest.raises(UserError, match=r"2 networks, and this run 1; give --model Ensemble --ensemble\.networks 2$"):
        check_options(two, one)
    check_options(one, experiment({"model": "Blend"}))
