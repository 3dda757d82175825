"""Every encoder passes this suite: add it to ENCODERS and it is tested."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from seqcl.encoders import ENCODERS, GRU, HSTU, NARM, BERT4Rec, BSARec, SASRec, TapRec, attention
from seqcl.encoders.attention import RelativeAttention
from seqcl.encoders.bsarec import FourierFilter
from seqcl.encoders.dropout import Dropout
from seqcl.encoders.extended import Extended, kept_layers
from seqcl.encoders.gate import ChannelGate, SelectiveKernel
from seqcl.encoders.hstu import Block
from seqcl.encoders.layout import Layout, best_fit
from seqcl.encoders.taprec import CausalFilter
from seqcl.errors import UserError
from seqcl.types import PAD, SeqBatch
from tests import reference_encoders as reference

ITEMS, MAX_LEN, DIM = 30, 12, 8
VARIANTS = {
    **{
        f"SASRec-{norm}-{positions}": lambda norm=norm, positions=positions: SASRec(
            num_items=ITEMS, max_len=MAX_LEN, dim=DIM, norm=norm, positions=positions
        )
        for norm, positions in product(("pre", "post", "query"), ("start", "end", "relative"))
    },
    "SASRec-relu": lambda: SASRec(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, activation="relu", hidden=1),
    "SASRec-one-layer": lambda: SASRec(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, layers=1, heads=4),
    "BSARec": lambda: BSARec(num_items=ITEMS, max_len=MAX_LEN, dim=DIM),
    "BSARec-one-layer": lambda: BSARec(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, layers=1, heads=4, cutoff=12),
    "TapRec": lambda: TapRec(num_items=ITEMS, max_len=MAX_LEN, dim=DIM),
    "TapRec-one-layer": lambda: TapRec(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, layers=1, taps=20, positions="start"),
    "GRU": lambda: GRU(num_items=ITEMS, max_len=MAX_LEN, dim=DIM),
    "GRU-two-layers": lambda: GRU(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, layers=2),
    "HSTU": lambda: HSTU(num_items=ITEMS, max_len=MAX_LEN, dim=DIM),
    "HSTU-one-layer": lambda: HSTU(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, layers=1, heads=4),
    "NARM": lambda: NARM(num_items=ITEMS, max_len=MAX_LEN, dim=DIM),
    "NARM-two-layers": lambda: NARM(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, layers=2, hidden=1),
    **{
        f"{kind.__name__}-gate": lambda kind=kind: kind(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, gate=2)
        for kind in (SASRec, BSARec, TapRec, GRU, HSTU, NARM, BERT4Rec)
    },
    **{
        f"{kind.__name__}-kernels": lambda kind=kind: kind(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, gate=2, kernels=3)
        for kind in (SASRec, BSARec, TapRec, GRU, HSTU, NARM, BERT4Rec)
    },
    "BERT4Rec": lambda: BERT4Rec(num_items=ITEMS, max_len=MAX_LEN, dim=DIM),
    "BERT4Rec-one-layer": lambda: BERT4Rec(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, layers=1, heads=4),
}


CAUSAL = [name for name in VARIANTS if not name.startswith("BERT4Rec")]


@pytest.fixture(params=VARIANTS)
def encoder(request):
    return ready(request.param)


@pytest.fixture(params=CAUSAL)
def causal_encoder(request):
    return ready(request.param)


@pytest.fixture(params=[name for name in VARIANTS if name not in CAUSAL])
def bidirectional_encoder(request):
    return ready(request.param)


def ready(variant: str):
    torch.manual_seed(0)
    built = VARIANTS[variant]().eval()
    for name, parameter in built.named_parameters():
        if "far_" in name or name == "place":  # starts near zero, where it could be ignored unnoticed
            torch.nn.init.normal_(parameter)
    return built


def batch(rows: list[list[int]], width: int | None = None) -> SeqBatch:
    width = width or max(map(len, rows))
    items = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
    return SeqBatch(items, torch.tensor([len(row) for row in rows]))


ROWS = [[3, 9, 1, 30, 7], [5], [8, 8], [2, 4, 6, 8, 10, 12, 14]]


def test_every_encoder_of_the_table_is_in_this_suite():
    assert {name.split("-")[0] for name in VARIANTS} == set(ENCODERS)


def test_shapes_and_the_tied_table(encoder):
    states = encoder(batch(ROWS))
    assert states.shape == (4, 7, DIM)
    assert encoder.last(batch(ROWS)).shape == (4, DIM)
    assert encoder.item_embeddings().shape == (ITEMS + 2, DIM)
    assert encoder.item_embeddings()[PAD].abs().sum() == 0


def test_last_is_the_state_after_the_newest_item(causal_encoder):
    inputs = batch(ROWS)
    states = causal_encoder(inputs)[torch.arange(4), inputs.lengths - 1]
    torch.testing.assert_close(causal_encoder.last(inputs), states)


def test_last_of_a_bidirectional_encoder_is_the_state_of_a_mask_behind_the_row(bidirectional_encoder):
    mask = ITEMS + 1
    whole = batch([[*row, mask] for row in ROWS])
    states = bidirectional_encoder(whole)[torch.arange(4), whole.lengths - 1]
    torch.testing.assert_close(bidirectional_encoder.last(batch(ROWS)), states)


def test_a_full_row_loses_its_oldest_item_to_the_mask(bidirectional_encoder):
    full, other = list(range(1, MAX_LEN + 1)), [5, 6]
    expected = bidirectional_encoder(batch([[*full[1:], ITEMS + 1]]))[0, -1]
    torch.testing.assert_close(bidirectional_encoder.last(batch([other, full]))[1], expected)
    shorter = bidirectional_encoder(batch([[*other, ITEMS + 1]]))[0, -1]
    torch.testing.assert_close(bidirectional_encoder.last(batch([other, full]))[0], shorter)


def test_a_later_item_changes_every_state_of_a_bidirectional_encoder(bidirectional_encoder):
    inputs = batch(ROWS)
    changed = inputs.items.clone()
    changed[3, 6] = 13
    before, after = bidirectional_encoder(inputs), bidirectional_encoder(inputs._replace(items=changed))
    assert all(not torch.allclose(before[3, place], after[3, place], atol=1e-4) for place in range(7))
    for row, length in enumerate(inputs.lengths[:3]):  # the other rows, though they may share a block with it
        torch.testing.assert_close(before[row, :length], after[row, :length])


def test_the_same_item_at_two_places_of_a_bidirectional_encoder_has_two_states(bidirectional_encoder):
    states = bidirectional_encoder(batch([[4, 4, 9, 4]]))[0]
    assert not torch.allclose(states[0], states[1], atol=1e-4) and not torch.allclose(states[1], states[3], atol=1e-4)


def test_a_future_item_changes_no_earlier_state(causal_encoder):
    encoder, inputs = causal_encoder, batch(ROWS)
    changed = inputs.items.clone()
    changed[0, 3], changed[3, 6] = 11, 13
    before, after = encoder(inputs), encoder(inputs._replace(items=changed))
    torch.testing.assert_close(before[0, :3], after[0, :3])
    torch.testing.assert_close(before[3, :6], after[3, :6])
    assert not torch.allclose(before[0, 3:5], after[0, 3:5])


def test_padding_changes_nothing(encoder):
    narrow, wide = batch(ROWS), batch(ROWS, width=MAX_LEN)
    filled = wide._replace(items=wide.items.masked_fill(wide.items == PAD, 17))
    for row, length in enumerate(narrow.lengths):
        torch.testing.assert_close(encoder(narrow)[row, :length], encoder(wide)[row, :length])
        torch.testing.assert_close(encoder(wide)[row, :length], encoder(filled)[row, :length])
    torch.testing.assert_close(encoder.last(narrow), encoder.last(filled))


def test_the_order_of_rows_changes_nothing(encoder):
    inputs, order = batch(ROWS), torch.tensor([2, 0, 3, 1])
    shuffled = SeqBatch(inputs.items[order], inputs.lengths[order])
    torch.testing.assert_close(encoder.last(inputs)[order], encoder.last(shuffled))


def test_the_order_of_items_matters(encoder):
    assert not torch.allclose(encoder.last(batch([[1, 2, 3]])), encoder.last(batch([[2, 1, 3]])), atol=1e-4)


def test_one_pass_states_equal_those_of_each_prefix(encoder):
    if not encoder.one_pass or getattr(encoder, "positions", None) == "end":
        pytest.skip("a row tells its states where it ends")
    row = ROWS[3]
    states = encoder(batch([row]))[0]
    for stop in range(1, len(row) + 1):
        torch.testing.assert_close(states[stop - 1], encoder.last(batch([row[:stop]]))[0], atol=1e-5, rtol=1e-5)


def test_positions_from_the_end_are_those_from_the_start_of_a_row_turned_round():
    end, start = ready("SASRec-post-end"), ready("SASRec-post-start")
    row = ROWS[3]
    start.load_state_dict(end.state_dict())
    start.place.data[: len(row)] = end.place.data[: len(row)].flip(0)
    torch.testing.assert_close(end(batch([row])), start(batch([row])))
    torch.testing.assert_close(end.last(batch([row])), start.last(batch([row])))


def test_gradient_reaches_every_parameter_but_the_pad_row(encoder):
    encoder.train()
    encoder(batch(ROWS)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert encoder.item_embeddings().grad[PAD].abs().sum() == 0


@pytest.mark.parametrize("kind", [SASRec, TapRec, HSTU, NARM])
def test_last_sends_the_gradient_that_the_full_pass_sends(kind):
    torch.manual_seed(0)
    encoder = kind(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, dropout=0.0).double()
    inputs = batch(ROWS)
    grads = []
    for states in (encoder.last(inputs), encoder(inputs)[torch.arange(4), inputs.lengths - 1]):
        encoder.zero_grad()
        states.square().sum().backward()
        grads.append([parameter.grad.clone() for parameter in encoder.parameters()])
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(("newest", "causal"), [(False, True), (True, True), (False, False), (True, False)])
def test_relative_attention_equals_a_loop_over_pairs(newest, causal):
    torch.manual_seed(0)
    module = RelativeAttention(DIM, 2, MAX_LEN).double()
    torch.nn.init.normal_(module.far_key)
    torch.nn.init.normal_(module.far_value)
    x, lengths = torch.randn(3, 5, DIM, dtype=torch.float64), torch.tensor([5, 1, 3])
    layout = Layout(SeqBatch(torch.ones(3, 5, dtype=torch.int64), lengths), causal=causal)
    slots = torch.zeros(layout.owner.numel(), DIM, dtype=torch.float64)
    slots[layout.slots] = x.flatten(0, 1)[layout.places]
    found = module(slots, layout, newest=newest)
    found = found if newest else layout.put(found)
    for row, length in enumerate(lengths):
        for place in [length - 1] if newest else range(length):
            stop = int(place) + 1 if causal else int(length)
            expected = reference.relative_attention(module, x[row], int(place), stop=stop)
            torch.testing.assert_close(found[row] if newest else found[row, place], expected)


@pytest.mark.parametrize("causal", [True, False])
def test_relative_attention_in_pieces_equals_all_at_once_with_its_gradient(causal, monkeypatch):
    torch.manual_seed(0)
    module = RelativeAttention(DIM, 2, MAX_LEN).double()
    layout = Layout(SeqBatch(torch.ones(7, 5, dtype=torch.int64), torch.tensor([5, 4, 5, 2, 5, 1, 3])), causal=causal)
    x = torch.randn(layout.owner.numel(), DIM, dtype=torch.float64)
    found, pieces, whole = [], [], module.read_blocks
    monkeypatch.setattr(module, "read_blocks", lambda *given: pieces.append(len(given[0])) or whole(*given))
    for piece_bytes in (2 * 2 * 5 * 5 * 8, 1, 2**20):  # two blocks, less than one, all
        monkeypatch.setattr(attention, "PIECE_BYTES", piece_bytes)
        monkeypatch.setattr(attention, "WHOLE_BYTES", 0)
        module.zero_grad()
        source = x.clone().requires_grad_()
        read = module(source, layout)
        read.square().sum().backward()
        found.append([read, source.grad, *(parameter.grad for parameter in module.parameters())])
    assert layout.blocks == (5, 5) and pieces == [2, 2, 1, 1, 1, 1, 1, 1, 5]
    for split in found[:2]:
        for mine, theirs in zip(split, found[2], strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("kind", ["end", "relative", "BSARec"])
@pytest.mark.parametrize("newest", [False, True])
def test_attention_dropout_drops_the_weights_themselves_in_training_alone(kind, newest, monkeypatch):
    sizes = {"num_items": ITEMS, "max_len": MAX_LEN, "dim": DIM, "dropout": 0.0, "layers": 1, "attention_dropout": 0.5}
    torch.manual_seed(0)
    encoder = BSARec(**sizes) if kind == "BSARec" else SASRec(**sizes, positions=kind)
    inputs, module = batch(ROWS), encoder.blocks[0].attention
    torch.nn.init.zeros_(module.output.bias)
    read = []
    module.output.register_forward_hook(lambda _, given, found: read.append(found))
    look = encoder.last if newest else encoder
    look(inputs)
    look(inputs)
    assert not torch.equal(read[0], read[1])  # two draws
    with monkeypatch.context() as patch:
        patch.setattr(module.dropout, "forward", lambda weights: weights / 2)
        look(inputs)
    encoder.eval()
    look(inputs)
    torch.testing.assert_close(read[2], read[3] / 2)  # values and vectors of distances are read by the same weights


def test_the_norm_of_queries_is_that_of_torchs_attention_with_other_keys_and_values():
    torch.manual_seed(0)
    encoder = SASRec(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, norm="query", positions="end", layers=1).double().eval()
    block, row = encoder.blocks[0], torch.randn(1, 6, DIM, dtype=torch.float64)
    plain = torch.nn.MultiheadAttention(DIM, 2, batch_first=True).double()
    with torch.no_grad():
        plain.in_proj_weight.copy_(torch.cat((block.attention.query.weight, block.attention.key_value.weight)))
        plain.in_proj_bias.copy_(torch.cat((block.attention.query.bias, block.attention.key_value.bias)))
    plain.out_proj.load_state_dict(block.attention.output.state_dict())
    later = torch.ones(6, 6, dtype=torch.bool).triu(1)
    x = block.feed_norm(row + plain(block.attention_norm(row), row, row, attn_mask=later)[0])
    layout = Layout(batch([[1] * 6]))
    torch.testing.assert_close(block(row[0], layout), (x + block.narrow(torch.nn.functional.gelu(block.widen(x))))[0])
    torch.testing.assert_close(encoder.finish(x), encoder.edge_norm(x))


def test_with_the_norm_of_queries_the_inside_of_the_feed_forward_part_is_dropped_and_what_attention_reads_is_not():
    encoder = SASRec(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, norm="query", layers=1)
    dropped: list[int] = []
    encoder.blocks[0].dropout.register_forward_hook(lambda _, given, found: dropped.append(given[0].shape[-1]))
    encoder(batch(ROWS))
    assert dropped == [4 * DIM, DIM]


def test_a_share_of_attention_weights_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"encoder.attention_dropout must be from 0 to below 1, not 1"):
        SASRec(num_items=ITEMS, max_len=MAX_LEN, attention_dropout=1.0)


@pytest.mark.parametrize("positions", ["start", "end", "relative"])
def test_sasrec_reads_both_ways_when_told_to_and_then_the_order_still_matters(positions):
    encoder = ready(f"SASRec-post-{positions}")
    encoder.causal = False
    inputs = batch(ROWS)
    changed = inputs.items.clone()
    changed[0, 3] = 11
    before, after = encoder(inputs), encoder(inputs._replace(items=changed))
    assert not torch.allclose(before[0, 0], after[0, 0], atol=1e-4)
    torch.testing.assert_close(before[1, 0], after[1, 0])  # another row, which shares a block
    torch.testing.assert_close(encoder.last(inputs), before[torch.arange(4), inputs.lengths - 1])
    assert not torch.allclose(encoder(batch([[1, 2, 3, 4]]))[0, 3], encoder(batch([[2, 1, 3, 4]]))[0, 3], atol=1e-4)


@pytest.mark.parametrize("newest", [False, True])
def test_an_hstu_block_equals_a_loop_over_pairs(newest):
    torch.manual_seed(0)
    block = Block(DIM, 2, MAX_LEN, 0.3).double().eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x, lengths = torch.randn(3, 5, DIM, dtype=torch.float64), torch.tensor([5, 1, 3])
    layout = Layout(SeqBatch(torch.ones(3, 5, dtype=torch.int64), lengths))
    found = block(layout.take(x), layout, newest=newest)
    found = found if newest else layout.put(found)
    for row, length in enumerate(lengths):
        for place in [length - 1] if newest else range(length):
            expected = reference.hstu_block(block, x[row], int(place))
            torch.testing.assert_close(found[row] if newest else found[row, place], expected)


@pytest.mark.parametrize("taps", [1, 3, 9])
def test_the_gradient_of_the_causal_filter_is_that_of_its_values(taps):
    torch.manual_seed(0)
    filter = CausalFilter(2, taps).double()
    layout = Layout(SeqBatch(torch.ones(4, 5, dtype=torch.int64), torch.tensor([5, 2, 3, 1])))
    assert layout.blocks == (3, 5)  # two rows share a block, and one has places of nobody
    x = torch.randn(15, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn_like(filter.weight).requires_grad_()
    call = torch.func.functional_call
    assert torch.autograd.gradcheck(lambda x, weight: call(filter, {"weight": weight}, (x, layout)), (x, weight))


@pytest.mark.parametrize("taps", [1, 3, 9])
def test_a_causal_filter_equals_a_loop_over_places(taps):
    torch.manual_seed(0)
    filter = CausalFilter(DIM, taps).double()
    torch.testing.assert_close(filter.weight.sum(0), torch.ones(DIM, dtype=torch.float64))
    torch.nn.init.normal_(filter.weight)
    x, lengths = torch.randn(3, 5, DIM, dtype=torch.float64), torch.tensor([5, 1, 3])
    layout = Layout(SeqBatch(torch.ones(3, 5, dtype=torch.int64), lengths))
    found = layout.put(filter(layout.take(x), layout))
    for row, length in enumerate(lengths):
        for place in range(length):
            expected = sum(filter.weight[back] * x[row, place - back] for back in range(min(taps, place + 1)))
            torch.testing.assert_close(found[row, place], expected)


@pytest.mark.parametrize("cutoff", [1, 4, 9])
def test_bsarec_equals_sums_over_frequencies_and_places_of_one_row_padded_in_front(cutoff):
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        encoder = BSARec(num_items=ITEMS, max_len=8, dim=DIM, cutoff=cutoff, filtered=0.3).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    for parameter in (encoder.place, encoder.table.weight, *(block.filter_norm.bias for block in encoder.blocks)):
        torch.nn.init.normal_(parameter)
    with torch.no_grad():
        encoder.table.weight[PAD] = 0
    last = encoder.last(batch(ROWS))
    for row, items in enumerate(ROWS):
        expected = reference.bsarec(encoder, items, alpha=0.3, cutoff=cutoff)
        torch.testing.assert_close(last[row], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("length", [1, 7, 8])
def test_the_low_frequencies_of_bsarec_are_those_of_the_fourier_transform(length):
    filter = FourierFilter(DIM, length, 5)
    x = torch.randn(3, length, DIM)
    spectrum = torch.fft.rfft(x, dim=1, norm="ortho")
    spectrum[:, 3:] = 0
    low = torch.fft.irfft(spectrum, n=length, dim=1, norm="ortho")
    expected = low + filter.beta_root**2 * (x - low)
    torch.testing.assert_close(filter(x, slice(None)), expected)
    torch.testing.assert_close(filter(x, slice(-1, None)), expected[:, -1:])


def test_bsarec_refuses_what_it_cannot_be():
    for options, said in (({"filtered": 2}, "filtered must be from 0 to 1, not 2"), ({"heads": 3}, "heads=3 does not")):
        with pytest.raises(UserError, match=said):
            BSARec(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, **options)


def test_taprec_without_its_filter_is_sasrec():
    torch.manual_seed(0)
    encoder = TapRec(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, filtered=0.0).eval()
    plain = SASRec(num_items=ITEMS, max_len=MAX_LEN, dim=DIM).eval()
    weights = {
        name.replace("attention.attention.", "attention."): value for name, value in encoder.state_dict().items()
    }
    plain.load_state_dict({name: value for name, value in weights.items() if "filter" not in name})
    torch.testing.assert_close(encoder(batch(ROWS)), plain(batch(ROWS)))
    with pytest.raises(UserError, match=r"encoder\.filtered must be from 0 to 1, not 2"):
        TapRec(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, filtered=2)


def test_narm_equals_a_loop_over_pairs():
    torch.manual_seed(0)
    encoder = NARM(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, hidden=2).double().eval()
    for parameter in encoder.attention.parameters():
        torch.nn.init.normal_(parameter)
    inputs = batch(ROWS)
    found, last = encoder(inputs), encoder.last(inputs)
    for row, items in enumerate(ROWS):
        states = [reference.narm(encoder, items[: place + 1]) for place in range(len(items))]
        torch.testing.assert_close(found[row, : len(items)], torch.stack(states))
        torch.testing.assert_close(last[row], states[-1])


def test_a_layout_shows_the_whole_row_or_what_came_before():
    lengths = torch.tensor([3, 1, 2])
    inputs = SeqBatch(torch.ones(3, 3, dtype=torch.int64), lengths)
    causal, both = Layout(inputs), Layout(inputs, causal=False)
    assert both.visible.equal(causal.visible | causal.visible.transpose(1, 2))
    assert int(both.visible[both.owner >= 0].sum()) == 9 + 1 + 4 and int(causal.visible[causal.owner >= 0].sum()) == 10


def test_a_layout_covers_every_item_once_in_few_slots():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.empty(256).exponential_(1 / 6, generator=generator).long().clamp(1, 50)
    items = torch.arange(1, 256 * 50 + 1).view(256, 50).masked_fill(torch.arange(50) >= lengths[:, None], PAD)
    layout = Layout(SeqBatch(items, lengths))
    taken = layout.take(items)
    assert sorted(taken[taken != PAD].tolist()) == items[items != PAD].tolist()
    assert len(taken) < 1.05 * int(lengths.sum())
    assert (taken[layout.newest] == items[torch.arange(256), lengths - 1]).all()
    assert (layout.put(taken[:, None].float())[:, :, 0].long() == items).all()
    owner = layout.owner.flatten()
    for row in range(256):  # the items of a row stand behind one another in one block
        (mine,) = (owner == row).nonzero(as_tuple=True)
        assert (mine == torch.arange(len(mine)) + mine[0]).all() and len(set((mine // layout.blocks[1]).tolist())) == 1
    assert (taken[owner < 0] == PAD).all()


@pytest.mark.parametrize("lengths", [[5], [1, 1, 1], [4, 3, 2, 1, 2], [7, 7, 7]])
def test_rows_are_packed_where_they_fit(lengths):
    width, block, offset, rank = best_fit(lengths)
    assert width == max(lengths) and max(block) + 1 == -(-sum(lengths) // width)
    taken = [
        (number, offset + place)
        for number, offset, length in zip(block, offset, lengths, strict=True)
        for place in range(length)
    ]
    assert len(set(taken)) == sum(lengths) and all(place < width for _, place in taken)
    for number in set(block):
        assert sorted(r for r, b in zip(rank, block, strict=True) if b == number) == list(range(block.count(number)))


def test_a_large_mixed_batch_gives_what_its_rows_give_alone(encoder):
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(1, ITEMS + 1, (1 + n % MAX_LEN,), generator=generator).tolist() for n in range(100)]
    together, everywhere = encoder.last(batch(rows)), encoder(batch(rows))
    for number in range(0, 100, 7):
        torch.testing.assert_close(together[number], encoder.last(batch([rows[number]]))[0], atol=1e-5, rtol=1e-4)
        alone = encoder(batch([rows[number]]))[0]
        torch.testing.assert_close(everywhere[number, : len(alone)], alone, atol=1e-5, rtol=1e-4)


def test_dropout_keeps_the_mean_and_drops_its_share():
    torch.manual_seed(0)
    dropped = Dropout(0.3)(torch.ones(1000, 1001))
    assert abs(float(dropped.mean()) - 1) < 0.005
    assert abs(float((dropped == 0).float().mean()) - 0.3) < 0.005
    # every byte of a word is used, the one with the sign too
    assert (abs((dropped.flatten()[:1000000].view(-1, 8) == 0).float().mean(0) - 0.3) < 0.01).all()


def test_dropout_of_one_is_refused():
    with pytest.raises(UserError, match="below 1"):
        Dropout(1.0)


@pytest.mark.parametrize("kind", [SASRec, HSTU, BERT4Rec])
def test_heads_that_do_not_divide_the_width_are_refused(kind):
    with pytest.raises(UserError, match=r"encoder\.heads=3 does not divide encoder\.dim=8"):
        kind(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, heads=3)


@pytest.mark.parametrize("kind", [SASRec, HSTU, BERT4Rec])
def test_a_row_longer_than_max_len_is_refused(kind):
    encoder = kind(num_items=ITEMS, max_len=3, dim=DIM)
    for call in (encoder, encoder.last):
        with pytest.raises(UserError, match="max_len=3"):
            call(batch([[1, 2, 3, 4]]))


def test_dropout_acts_in_training_only(encoder):
    encoder.train()
    assert not torch.allclose(encoder.last(batch(ROWS)), encoder.last(batch(ROWS)))
    encoder.eval()
    torch.testing.assert_close(encoder.last(batch(ROWS)), encoder.last(batch(ROWS)))


def test_bfloat16_autocast_stays_finite(encoder):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = encoder.last(batch(ROWS))
    assert torch.isfinite(states.float()).all()


def test_the_channel_gate_equals_a_loop_over_places():
    torch.manual_seed(0)
    gate, x = ChannelGate(DIM, 2), torch.randn(3, 5, DIM)
    for visible in (torch.ones(5, 5, dtype=torch.bool).tril(), torch.rand(3, 5, 5) < 0.5):
        found = gate(x, visible)
        for row, place in product(range(3), range(5)):
            seen = [x[row, other] for other in range(5) if visible.expand(3, 5, 5)[row, place, other]]
            mean = sum(seen) / len(seen) if seen else torch.zeros(DIM)
            hidden = (gate.narrow.weight @ mean + gate.narrow.bias).clamp(min=0)
            weight = 1 / (1 + (-(gate.widen.weight @ hidden + gate.widen.bias)).exp())
            torch.testing.assert_close(found[row, place], x[row, place] * weight)


def selective(visible):
    """A selective kernel of three widths in float64, and what it reads."""
    torch.manual_seed(0)
    kernel, x = SelectiveKernel(DIM, 2, 3).double(), torch.randn(3, 7, DIM, dtype=torch.float64)
    torch.nn.init.normal_(kernel.taps)
    return kernel, x, visible.expand(3, 7, 7)


CAUSAL_ROW = torch.ones(7, 7, dtype=torch.bool).tril()
TWO_ROWS = torch.block_diag(torch.ones(3, 3), torch.ones(4, 4)).bool()


@pytest.mark.parametrize(
    "visible", [CAUSAL_ROW, TWO_ROWS, TWO_ROWS.tril()], ids=["causal", "two rows", "two causal rows"]
)
@torch.no_grad()
def test_the_selective_kernel_equals_a_loop_over_places_and_channels(visible):
    kernel, x, visible = selective(visible)
    found, kernels = kernel(x, visible[0]), range(3)
    for row, place in product(range(3), range(7)):
        every = [[filtered(kernel, x[row], visible[row], at, m) for m in kernels] for at in range(7)]  # (W, M, D)
        seen = [sum(every[other]) for other in range(7) if visible[row, place, other]]
        hidden = (kernel.narrow.weight @ (sum(seen) / len(seen)) + kernel.narrow.bias).clamp(min=0)
        scores = (kernel.choose.weight @ hidden + kernel.choose.bias).view(3, DIM)
        for channel in range(DIM):
            parts = [float(scores[m, channel].exp()) for m in kernels]
            expected = sum(parts[m] / sum(parts) * float(every[place][m][channel]) for m in kernels)
            assert float(found[row, place, channel]) == pytest.approx(expected, rel=1e-9)


def filtered(kernel, x, visible, place, m):
    """Kernel m at a place of one row x (W, D), of a place and those (m + 1) and 2 (m + 1) before it."""
    total = torch.zeros(DIM, dtype=torch.float64)
    for tap in range(3):
        other = place - tap * (m + 1)
        if other >= 0 and visible[place, other]:
            total = total + kernel.taps[m, tap] * x[other]
    return total


def test_the_selective_kernel_has_right_gradients_and_reads_no_later_place():
    kernel, x, visible = selective(CAUSAL_ROW)
    inputs = [x[:1, :4].requires_grad_(), *kernel.parameters()]
    assert torch.autograd.gradcheck(lambda first, *rest: kernel(first, visible[:1, :4, :4]), inputs)
    changed = x.detach().clone()
    changed[:, 4:] = 9.0
    torch.testing.assert_close(kernel(changed, visible)[:, :4], kernel(x, visible)[:, :4], rtol=0, atol=0)


def test_without_scores_kernels_count_alike_and_several_need_a_gate():
    kernel, x, visible = selective(CAUSAL_ROW)
    for one in (kernel.narrow, kernel.choose):
        torch.nn.init.zeros_(one.weight), torch.nn.init.zeros_(one.bias)
    each = [kernel.filtered(x, visible, dilation) for dilation in (1, 2, 3)]
    torch.testing.assert_close(kernel(x, visible), sum(each) / 3)  # without scores it is their mean
    with pytest.raises(UserError, match=r"encoder.kernels=2 needs a gate.*--encoder.gate 16"):
        SASRec(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, kernels=2)
    with pytest.raises(UserError, match="kernels"):
        GRU(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, gate=2, kernels=0)


@pytest.mark.parametrize("kind", [SASRec, BSARec, TapRec, GRU, HSTU, NARM, BERT4Rec])
def test_without_a_gate_an_encoder_is_what_it_was_and_a_gate_below_nothing_is_refused(kind):
    made = []
    for options in ({}, {"gate": 0}, {"gate": 4}):
        torch.manual_seed(0)
        made.append(kind(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, **options).eval())
    plain, off, on = (dict(one.state_dict()) for one in made)
    assert plain.keys() == off.keys() and all(torch.equal(plain[name], off[name]) for name in plain)
    assert not any("gate.narrow" in name for name in plain) and any("gate.narrow" in name for name in on)
    assert not torch.allclose(made[0].last(batch(ROWS)), made[2].last(batch(ROWS)))
    with pytest.raises(UserError, match=r"encoder.*gate"):
        kind(num_items=ITEMS, max_len=MAX_LEN, dim=DIM, gate=-1)


def test_an_extended_encoder_has_the_blocks_and_the_shapes_of_the_one_below():
    below = SASRec(num_items=20, max_len=6, dim=8, layers=3).eval()
    encoder = Extended(below, kept_layers(1, 8)).eval()
    batch = SeqBatch(torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2]))
    found = encoder.by_block(batch, overlap=1)
    assert encoder.depth == 3 and encoder.fixed_shapes and found.shape == (2, 3, 8)
    torch.testing.assert_close(found[:, -1], encoder.last(batch))


def test_a_cutoff_above_the_spectrum_of_a_row_is_refused():
    BSARec(num_items=20, max_len=6, dim=8, cutoff=7)
    with pytest.raises(UserError, match=r"encoder\.cutoff=8: rows of 6 items have 3 pairs"):
        BSARec(num_items=20, max_len=6, dim=8, cutoff=8)


@pytest.mark.parametrize("positions", ["end", "relative"])
def test_scaled_embeddings_are_read_longer_and_ranked_as_they_are(positions):
    torch.manual_seed(0)
    options = {"num_items": 20, "max_len": 8, "dim": 16, "positions": positions, "norm": "pre", "dropout": 0.0}
    scaled, plain = SASRec(**options, scaled=True), SASRec(**options)
    plain.load_state_dict(scaled.state_dict())
    with torch.no_grad():
        plain.table.weight *= 4  # the root of 16
    rows = SeqBatch(torch.tensor([[3, 5, 7, 2], [4, 0, 0, 0]]), torch.tensor([4, 1]))
    torch.testing.assert_close(scaled.last(rows), plain.last(rows))
    torch.testing.assert_close(scaled.item_embeddings() * 4, plain.item_embeddings())
