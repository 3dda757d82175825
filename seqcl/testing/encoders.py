"""The conformance check of encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seqcl.testing.batches import inside, random_batch
from seqcl.types import PAD, SeqBatch

ITEMS, MAX_LEN = 30, 12


def check_encoder(make: Callable[..., Any]) -> None:
    """Check the encoder that `make(num_items=..., max_len=...)` builds: a class, or a function that adds options.

    Raises:
        AssertionError: names the rule that is broken.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = make(num_items=ITEMS, max_len=MAX_LEN)
        batch = rows_of_lengths([5, 1, 2, 7, MAX_LEN, 1, 3])
        check_table(encoder)
        check_shapes(encoder.eval(), batch)
        check_learning(encoder.train(), batch)
        stir(encoder.eval())
        with torch.no_grad():
            check_states(encoder, batch)


def check_states(encoder: Any, batch: SeqBatch) -> None:
    """Check the states of an encoder in eval()."""
    check_padding(encoder, batch)
    check_rows(encoder, batch)
    check_newest(encoder, batch)
    if getattr(encoder, "causal", True):
        check_last(encoder, batch)
        check_future(encoder, batch)


def rows_of_lengths(lengths: list[int]) -> SeqBatch:
    """Make rows of random items."""
    batch = random_batch(lengths, num_items=ITEMS, num_users=len(lengths), times=False, seed=0)
    return SeqBatch(batch.items, batch.lengths)


def check_table(encoder: Any) -> None:
    """Check the numbers that an encoder tells of itself, and its table of items."""
    assert encoder.num_items == ITEMS, f"num_items must be {ITEMS}, not {encoder.num_items}"
    table = encoder.item_embeddings()
    shape = (ITEMS + 2, encoder.dim)
    assert table.shape == shape, f"item_embeddings() must be (N + 2, dim), here {shape}, not {tuple(table.shape)}"
    assert not bool(table[PAD].any()), "the row of PAD in item_embeddings() must be zero"


def check_learning(encoder: Any, batch: SeqBatch) -> None:
    """Check that every parameter gets a gradient and that the row of PAD never learns."""
    weights = torch.Generator().manual_seed(1)
    total: Tensor = torch.zeros(())
    for states in (encoder(batch)[inside(batch)], encoder.last(batch)):
        total = total + (states * torch.randn(states.shape, generator=weights)).sum()
    total.backward()
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            reached = parameter.grad is not None and bool((parameter.grad.to_dense() != 0).any())
            assert reached, f"no gradient reaches {name}"
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad.to_dense()
    assert not bool(encoder.item_embeddings()[PAD].any()), "the row of PAD must not learn: set padding_idx"
    encoder.zero_grad(set_to_none=True)


def stir(encoder: Any) -> None:
    """Add noise to all weights but the table: some start so near zero that what they let through would not show."""
    noise, table = torch.Generator().manual_seed(2), encoder.item_embeddings().data_ptr()
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.data_ptr() != table:
                parameter += 0.1 * torch.randn(parameter.shape, generator=noise)


@torch.no_grad()
def check_shapes(encoder: Any, batch: SeqBatch) -> None:
    """Check the shapes of states, that they are finite, and that evaluation draws nothing."""
    before = batch.items.clone()
    (rows, width), dim = batch.items.shape, encoder.dim
    states = encoder(batch)
    assert states.shape == (rows, width, dim), f"states must be {(rows, width, dim)}, not {tuple(states.shape)}"
    last = encoder.last(batch)
    assert last.shape == (rows, dim), f"last must be {(rows, dim)}, not {tuple(last.shape)}"
    assert torch.equal(before, batch.items), "the encoder writes into the items of the batch"
    again = encoder(batch)[inside(batch)]
    assert torch.equal(states[inside(batch)], again), "in eval() two passes over one batch must give the same states"
    masked = batch._replace(items=batch.items.clone())
    masked.items[:, 0] = ITEMS + 1
    for found in (again, last, encoder(masked)[inside(batch)], encoder.last(masked)):
        assert bool(found.isfinite().all()), "states must be finite, of rows with the MASK token too"


def check_padding(encoder: Any, batch: SeqBatch) -> None:
    """Check that neither the width of the batch nor what stands in its padding changes a state."""
    real = inside(batch)
    filled = batch._replace(items=batch.items.masked_fill(~real, 17))
    states, last = encoder(batch), encoder.last(batch)
    message = "an item in the padding must not change a state"
    assert near(states[real], encoder(filled)[real]), message
    assert near(last, encoder.last(filled)), message
    short = batch.lengths < MAX_LEN  # (B,)
    width = int(batch.lengths[short].max())
    wide = SeqBatch(batch.items[short], batch.lengths[short])
    narrow = wide._replace(items=wide.items[:, :width])
    real, message = inside(narrow), "the width of the batch must not change a state"
    assert near(encoder(wide)[:, :width][real], encoder(narrow)[real]), message
    assert near(encoder.last(wide), encoder.last(narrow)), message


def check_rows(encoder: Any, batch: SeqBatch) -> None:
    """Check that a row gives the same states in any order and company."""
    order = torch.randperm(len(batch.lengths), generator=torch.Generator().manual_seed(3))
    moved = SeqBatch(batch.items[order], batch.lengths[order])
    real, states, last = inside(moved), encoder(batch), encoder.last(batch)
    message = "the order of the rows must not change a state"
    assert near(states[order][real], encoder(moved)[real]), message
    assert near(last[order], encoder.last(moved)), message
    for row, length in enumerate(batch.lengths.tolist()):
        alone = SeqBatch(batch.items[row : row + 1, :length], batch.lengths[row : row + 1])
        message = f"a row of {length} items must have the same states in a batch and alone"
        assert near(states[row, :length], encoder(alone)[0]), message
        assert near(last[row], encoder.last(alone)[0]), message


def check_newest(encoder: Any, batch: SeqBatch) -> None:
    """Check that the newest item of a row changes its last state, and that of no other row."""
    before = encoder.last(batch)
    for row, length in enumerate(batch.lengths.tolist()):
        after = encoder.last(changed(batch, row, length - 1))
        assert not near(before[row], after[row]), f"the newest of {length} items changes nothing in the last state"
        others = torch.arange(len(before)) != row
        assert near(before[others], after[others]), "an item of one row must not change the last state of another"


def check_last(encoder: Any, batch: SeqBatch) -> None:
    """Check that `last` is the state at the newest item."""
    states = encoder(batch)[torch.arange(len(batch.lengths)), batch.lengths - 1]
    assert near(encoder.last(batch), states), "last(batch) must equal the states at lengths - 1 of a causal encoder"


def check_future(encoder: Any, batch: SeqBatch) -> None:
    """Check that an item changes no state before its own."""
    before = encoder(batch)
    for row, length in enumerate(batch.lengths.tolist()):
        for place in range(1, length):
            after = encoder(changed(batch, row, place))
            earlier = near(before[row, :place], after[row, :place])
            assert earlier, f"item {place} of a row changes earlier states: set causal = False if it is to do so"


def changed(batch: SeqBatch, row: int, place: int) -> SeqBatch:
    """Put another item at one place of a batch."""
    items = batch.items.clone()
    items[row, place] = items[row, place] % ITEMS + 1
    return batch._replace(items=items)


def near(one: Tensor, two: Tensor) -> bool:
    """Compare states up to the rounding of float32."""
    return torch.allclose(one, two, rtol=1e-4, atol=1e-5)
