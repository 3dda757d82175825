"""The door into the input of an encoder, and the contrasts that use it: rows mixed, and views moved."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seqcl.augment import Identity
from seqcl.encoders import ENCODERS, Encoder, reading, vectors_read
from seqcl.errors import UserError
from seqcl.losses import info_nce, nt_xent
from seqcl.objectives import CLAE, IMix
from seqcl.objectives.mixed_inputs import mixed_with
from seqcl.testing.models import begun, tiny
from seqcl.types import SeqBatch
from tests.test_contrastive_objectives import DIM, made, rows_batch


def small(name):
    """A small encoder, and a batch."""
    of_encoder = {"encoder": {"name": name}, "data": {"windows": "prefix"}}
    model, batches = begun(
        tiny("TwoTower", towers={"reads": "items"}) if name == "TwoTower" else tiny("CL4Rec", **of_encoder)
    )
    return model.encoder.eval(), next(iter(batches))


@pytest.mark.parametrize("name", [*ENCODERS, "TwoTower"])
def test_an_encoder_that_reads_its_own_vectors_gives_its_own_states(name):
    encoder, batch = small(name)
    batch = batch._replace(items=batch.items.clone())
    batch.items[0, 0] = encoder.num_items + 1  # a MASK among the items
    vectors = vectors_read(encoder, batch)
    with reading(encoder, batch, vectors) as marked:
        last, states = encoder.last(marked), encoder(marked)
    torch.testing.assert_close(last, encoder.last(batch))
    inside = (batch.items > 0)[..., None]
    torch.testing.assert_close(states * inside, encoder(batch) * inside)
    changed = vectors.clone()
    changed[2] += torch.randn_like(changed[2])
    with reading(encoder, batch, changed) as marked:
        other = encoder.last(marked)
    assert not torch.allclose(other[2], last[2], atol=1e-3)
    kept = [row for row in range(len(last)) if row != 2]
    torch.testing.assert_close(other[kept], last[kept])
    (gradient,) = torch.autograd.grad(last.square().sum(), vectors)
    assert (gradient.abs().sum(-1) > 0).equal(batch.items > 0)


def test_the_door_is_shut_behind_an_error_and_an_encoder_without_a_table_has_none():
    encoder, batch = small("SASRec")
    before = encoder.last(batch)
    with pytest.raises(RuntimeError, match="stop"), reading(encoder, batch, vectors_read(encoder, batch)):
        raise RuntimeError("stop")
    torch.testing.assert_close(encoder.last(batch), before)

    class Own(Encoder):
        def __init__(self):
            super().__init__(num_items=3, max_len=3, dim=2)
            self.items = nn.Embedding(5, 2)

    with pytest.raises(UserError, match="Own cannot read vectors"):
        vectors_read(Own(), batch)


def test_rows_are_mixed_with_their_newest_items_side_by_side():
    vectors = torch.tensor([[[1.0], [2.0], [4.0]], [[10.0], [20.0], [0.0]]])
    rows = SeqBatch(torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2]))
    found = mixed_with(vectors, rows, torch.tensor([1, 0]), torch.tensor([0.75, 0.5]))
    assert found[0, :, 0].tolist() == [1.0, 0.75 * 2 + 0.25 * 10, 0.75 * 4 + 0.25 * 20]
    assert found[1, :2, 0].tolist() == [0.5 * 10 + 0.5 * 2, 0.5 * 20 + 0.5 * 4]
    itself = mixed_with(vectors, rows, torch.tensor([0, 1]), torch.tensor([0.6, 0.7]))
    torch.testing.assert_close(itself[:, :2], vectors[:, :2])


def plain_batch(rows=12):
    """Rows without kin."""
    return rows_batch(range(rows))._replace(targets=torch.arange(1, rows + 1))


def test_rows_that_keep_all_of_themselves_are_plain_info_nce(monkeypatch):
    encoder, objective = made("IMix", views=Identity())
    encoder.eval()
    monkeypatch.setattr(IMix, "draw", lambda self, rows, like: (torch.arange(rows).roll(1), torch.ones(rows)))
    batch = plain_batch()
    states = objective.head(encoder.last(batch))
    # The partner's key is another positive there, and stays in the sum.
    expected = objective.weight * info_nce(states, states, temperature=objective.temperature)
    torch.testing.assert_close(objective(encoder, batch)["contrast"], expected)


def test_parts_are_at_least_a_half_and_spread_as_their_distribution_says():
    torch.manual_seed(0)
    partner, part = made("IMix", mix=1.0)[1].draw(4000, torch.zeros(1))
    assert partner.sort().values.equal(torch.arange(4000)) and 0.5 <= float(part.min()) < 0.51 < float(part.max()) <= 1
    assert float(part.mean()) == pytest.approx(0.75, abs=0.01)
    assert float(made("IMix", mix=50.0)[1].draw(4000, torch.zeros(1))[1].mean()) < 0.56


def test_a_move_of_nothing_doubles_the_plain_contrast_and_without_the_harder_one_it_is_left():
    batch = plain_batch()
    for epsilon, adversarial, times in ((0.0, 1.0, 2.0), (0.5, 0.0, 1.0)):
        encoder, objective = made("CLAE", views=Identity(), epsilon=epsilon, adversarial=adversarial)
        encoder.eval()
        states = objective.head(encoder.last(batch))
        expected = times * objective.weight * nt_xent(states, states, temperature=objective.temperature)
        torch.testing.assert_close(objective(encoder, batch)["contrast"], expected)


def test_a_moved_view_is_harder_and_each_vector_moves_by_its_part_of_its_length():
    encoder, objective = made("CLAE", epsilon=0.3)
    encoder.eval()
    moves = []
    make = objective.move
    objective.move = lambda *given: moves.append((given[1].detach(), make(*given))) or moves[-1][1]
    torch.manual_seed(3)
    both = objective(encoder, plain_batch())["contrast"]
    (vectors, move) = moves[0]
    lengths = vectors.norm(dim=-1)
    torch.testing.assert_close(move.norm(dim=-1)[lengths > 0], 0.3 * lengths[lengths > 0])
    assert not move.requires_grad and not move[lengths == 0].any()
    objective.adversarial = 0.0
    torch.manual_seed(3)
    plain = objective(encoder, plain_batch())["contrast"]
    assert both.item() > 2 * plain.item()


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (IMix, {"mix": 0.0}, "mix must be above 0"),
        (IMix, {"temperature": 0.0}, "temperature must be above 0"),
        (CLAE, {"epsilon": -1.0}, "epsilon must not be negative"),
        (CLAE, {"adversarial": -1.0}, "adversarial must not be negative"),
    ],
)
def test_a_value_out_of_its_range_is_refused(kind, options, said):
    with pytest.raises(UserError, match=said):
        kind(views=Identity(), dim=DIM, **options)
