"""Item embeddings that begin spectrally, and a learned bias: what they are, and that every way round keeps them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from seqcl.config import experiment
from seqcl.data import Interactions, leave_one_out, pack
from seqcl.encoders import SASRec, Scoring
from seqcl.encoders.spectral import begun_spectrally, spectral
from seqcl.errors import UserError
from seqcl.objectives import NextItem
from seqcl.retrieval import ExactIndex, FaissIndex

USERS, ITEMS, DIM = 40, 15, 6


def sequences(seed=0):
    rng = np.random.default_rng(seed)
    rows = [(user, item) for user in range(USERS) for item in rng.integers(0, ITEMS, 7)]
    return pack(Interactions.from_frame(pd.DataFrame(rows, columns=["user_id", "item_id"]), time=None))


def test_cosines_of_spectral_vectors_are_those_of_a_dense_decomposition():
    train = leave_one_out(sequences()).train
    had = np.zeros((USERS, ITEMS + 2))
    had[train.known()] = 1
    scaled = had / np.sqrt(np.maximum(had.sum(1, keepdims=True), 1) * np.maximum(had.sum(0), 1))
    _, values, right = np.linalg.svd(scaled)
    wanted = (values[:DIM, None] * right[:DIM]).T[1:-1]
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = spectral(train, DIM)
    assert not found[[0, -1]].any()
    np.testing.assert_allclose(found[1:-1] @ found[1:-1].T, wanted @ wanted.T, atol=1e-5)
    np.testing.assert_array_equal(found, spectral(train, DIM))


def test_items_that_training_has_not_have_no_vector_and_a_small_log_fills_what_it_can():
    log = pd.DataFrame(
        [(user, item) for user in range(4) for item in (0, 1, 2 + user, 6)], columns=["user_id", "item_id"]
    )
    train = leave_one_out(pack(Interactions.from_frame(log, time=None))).train
    found = spectral(train, 32)  # only validation and test have the items from 2 on
    assert found.shape == (9, 32) and (found != 0).any(1).tolist() == [False, True, True, *[False] * 6]


def test_the_spectral_part_is_as_long_as_the_noise_and_pad_stays_zero():
    train = leave_one_out(sequences()).train
    torch.manual_seed(0)
    plain = SASRec(num_items=ITEMS, max_len=5, dim=8, layers=1, heads=1).item_embeddings().detach().clone()
    torch.manual_seed(0)
    begun = (
        begun_spectrally(SASRec, train)(num_items=ITEMS, max_len=5, dim=8, layers=1, heads=1).item_embeddings().detach()
    )
    added = begun - plain
    torch.testing.assert_close(F.normalize(added[1:-1], dim=1), torch.from_numpy(spectral(train, 8))[1:-1])
    torch.testing.assert_close(added[1:-1].norm(dim=1), plain[1:-1].norm(dim=1).mean().expand(ITEMS))
    assert not added[[0, -1]].any()


def test_a_model_begins_as_it_is_told_and_so_does_what_follows_it():
    values = {"model": "MoCoRec", "start": "spectral", "encoder": {"dim": 8}, "dataset": "x"}
    split = leave_one_out(sequences(), max_len=5)
    models = [experiment(values | {"start": start}).build(split.train) for start in ("random", "spectral")]
    plain, begun = (model.encoder.item_embeddings() for model in models)
    assert not torch.equal(plain[1:-1], begun[1:-1])
    followers = [value for name, value in models[1].state_dict().items() if "contrast" in name and "table" in name]
    assert followers and all(torch.equal(value, begun) for value in followers)


def test_a_misspelt_start_names_the_nearest():
    with pytest.raises(UserError, match="spectral"):
        experiment({"model": "SASRec", "start": "spectrl", "dataset": "x"})


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_learned_bias_is_added_to_every_score_and_begins_with_the_counts(similarity):
    counts = torch.arange(ITEMS + 2)
    rank = NextItem(similarity=similarity, temperature=0.5, bias=True).bind(item_counts=counts)
    states, table, targets = torch.randn(4, DIM), torch.randn(ITEMS + 2, DIM), torch.tensor([3, 1, 9, 15])
    scoring, plain = rank.scoring, Scoring(similarity=similarity, temperature=0.5)
    begin = 0.5 * torch.log(counts[1:-1] + 1.0)
    torch.testing.assert_close(scoring.bias.detach(), begin - begin.mean())
    scores = plain.queries(states) @ plain.candidates(table).T + scoring.bias
    torch.testing.assert_close(scoring.queries(states) @ scoring.candidates(table).T, scores)
    loss = rank.mean(states, targets, table)
    torch.testing.assert_close(loss, F.cross_entropy(scores, targets - 1))
    (gradient,) = torch.autograd.grad(loss, scoring.bias)
    torch.testing.assert_close(gradient, (scores.softmax(1).sum(0) - F.one_hot(targets - 1, ITEMS).sum(0)) / 4)


def test_a_model_without_embeddings_has_no_start():
    with pytest.raises(UserError, match="--start spectral: ItemKNN has no item embeddings"):
        experiment({"model": "ItemKNN", "start": "spectral", "dataset": "x"})


def test_embeddings_that_are_computed_cannot_begin_spectrally():
    class Computed(SASRec):
        def item_embeddings(self):
            return F.normalize(super().item_embeddings(), dim=1)

    with pytest.raises(UserError, match="Computed computes its item embeddings"):
        begun_spectrally(Computed, leave_one_out(sequences()).train)(num_items=ITEMS, max_len=5)


def test_a_graph_index_finds_items_with_a_bias():
    torch.manual_seed(0)
    counts = (4000 / torch.arange(1, 4003) ** 0.7).round()
    rank = Scoring(similarity="cosine", temperature=0.1, bias=True)
    rank.begin(counts)
    with torch.no_grad():
        rank.bias *= 1.5
        queries = rank.queries(torch.randn(100, 32))
        candidates = rank.candidates(torch.randn(4002, 32)).contiguous()
    _, exact = ExactIndex(candidates).search(queries, 20)
    _, found = FaissIndex(candidates, kind="hnsw").search(queries, 20)
    assert (exact[:, :, None] == found[:, None, :]).any(2).float().mean() > 0.98
