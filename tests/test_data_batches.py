from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from seqcl.data import Interactions, Loader, leave_one_out, pack
from seqcl.errors import UserError
from seqcl.types import SeqBatch, Windows
from tests.reference_data import batch as slow_batch
from tests.reference_data import random_log


def windows(kind: str = "prefix", *, seed: int = 0, rows: int = 300, users: int = 40, max_len: int = 5) -> Windows:
    table = pd.DataFrame(random_log(seed, rows=rows, users=users), columns=["user_id", "item_id", "timestamp"])
    return leave_one_out(pack(Interactions.from_frame(table)), max_len=max_len, windows=kind).train


def same(one: SeqBatch, other: SeqBatch) -> bool:
    return all(
        (a is None and b is None) or (a.shape == b.shape and a.dtype == b.dtype and bool((a == b).all()))
        for a, b in zip(one, other, strict=True)
    )


def all_same(ones: list[SeqBatch], others: list[SeqBatch]) -> bool:
    return len(ones) == len(others) and all(same(a, b) for a, b in zip(ones, others, strict=True))


def row_keys(batches: list[SeqBatch]) -> list[tuple]:
    """Every row as something that can be sorted, without its padding."""
    return sorted(
        (int(b.users[r]), *b.items[r, : b.lengths[r]].tolist(), -1, *b.targets[r, : b.lengths[r]].tolist())
        for b in batches
        for r in range(len(b.lengths))
    )


@pytest.mark.parametrize("kind", ["last", "sliding", "prefix"])
@pytest.mark.parametrize("targets", ["all", "last", "none"])
def test_gather_equals_reading_item_by_item(kind: str, targets: str) -> None:
    train = windows(kind)
    loader = Loader(train, batch_size=8, targets=targets, times=True)
    random = np.random.default_rng(0)
    for size in (1, 2, 17):
        index = random.integers(0, len(train), size)
        expected = slow_batch(train, index.tolist())
        for got in (loader.gather(index), loader.gather(torch.from_numpy(index)), loader.gather(index.tolist())):
            assert got.items.tolist() == expected["items"]
            assert got.lengths.tolist() == expected["lengths"]
            assert got.users.tolist() == expected["users"]
            assert got.times.tolist() == expected["times"]
            if targets == "none":
                assert got.targets is None
            else:
                assert got.targets.tolist() == expected[targets]
            assert got.items.dtype == got.lengths.dtype == got.users.dtype == torch.int64
            assert got.items.is_contiguous()
            assert got.items.shape[1] == max(expected["lengths"])


def test_the_newest_window_of_the_packed_array_reads_nothing_past_its_end() -> None:
    table = pd.DataFrame({"user_id": [0] * 4 + [1] * 4, "item_id": range(8)})
    split = leave_one_out(pack(Interactions.from_frame(table, time=None)), max_len=50)
    batch = next(iter(Loader(split.test, batch_size=2, targets="last")))
    assert batch.items.tolist() == [[1, 2, 3], [5, 6, 7]]
    assert batch.targets.tolist() == [4, 8]


def test_iteration_gives_every_window_once_in_order_whatever_the_seed() -> None:
    train = windows()
    for seed in (None, 0):
        batches = list(Loader(train, batch_size=7, shuffle_seed=seed))
        assert len(batches) == len(Loader(train, batch_size=7)) == -(-len(train) // 7)
        assert torch.cat([batch.users for batch in batches]).tolist() == train.users.tolist()
        assert torch.cat([batch.lengths for batch in batches]).tolist() == (train.stop - train.start).tolist()


@pytest.mark.parametrize("bucket", [True, False])
def test_an_epoch_holds_every_window_once(bucket: bool) -> None:
    train = windows(rows=900, users=60)
    loader = Loader(train, batch_size=4, shuffle_seed=3, bucket=bucket)
    batches = list(loader.epoch(0))
    assert len(batches) == len(loader)
    assert row_keys(batches) == row_keys(list(loader))


@pytest.mark.parametrize("bucket", [True, False])
def test_an_epoch_is_the_same_for_a_seed_and_another_for_another_seed_or_number(bucket: bool) -> None:
    train = windows()

    def epoch(seed: int | None, number: int) -> list[SeqBatch]:
        return list(Loader(train, batch_size=16, shuffle_seed=seed, bucket=bucket).epoch(number))

    assert all_same(epoch(1, 4), epoch(1, 4))
    assert not all_same(epoch(1, 4), epoch(1, 5))
    assert not all_same(epoch(1, 4), epoch(2, 4))
    assert not all_same(epoch(1, 0), epoch(0, 1))
    assert all_same(epoch(None, 0), list(Loader(train, batch_size=16)))


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("bucket", [True, False])
def test_an_epoch_goes_on_in_the_middle_as_if_it_had_not_stopped(seed: int | None, bucket: bool) -> None:
    train = windows()
    whole = list(Loader(train, batch_size=9, shuffle_seed=seed, bucket=bucket).epoch(2))
    for start in (0, 1, len(whole) // 2, len(whole) - 1, len(whole)):
        rest = list(Loader(train, batch_size=9, shuffle_seed=seed, bucket=bucket).epoch(2, start))
        assert all_same(rest, whole[start:])


def test_buckets_cost_little_padding_and_mix_lengths_over_the_epoch() -> None:
    train = windows("last", rows=6000, users=900, max_len=50)

    def padding(bucket: bool) -> float:
        batches = list(Loader(train, batch_size=32, shuffle_seed=0, bucket=bucket).epoch(0))
        return sum(batch.items.numel() for batch in batches) / sum(int(batch.lengths.sum()) for batch in batches)

    assert padding(True) < 1.1 < padding(False)
    widths = [batch.items.shape[1] for batch in Loader(train, batch_size=32, shuffle_seed=0).epoch(0)]
    assert widths != sorted(widths)


def test_packed_arrays_are_shared_with_the_loader_and_batches_are_not() -> None:
    train = windows()
    before = train.items.copy()
    loader = Loader(train, batch_size=8)
    assert loader.items.data_ptr() == train.items.ctypes.data
    batch = next(iter(loader))
    batch.items.fill_(7)
    assert (train.items == before).all()


def test_wrong_options_are_named() -> None:
    train = windows()
    with pytest.raises(UserError, match="batch_size must be 1 or more, not 0"):
        Loader(train, batch_size=0)
    with pytest.raises(UserError, match="unknown targets 'al': did you mean all"):
        Loader(train, batch_size=1, targets="al")
    table = pd.DataFrame(random_log(0), columns=["user_id", "item_id", "timestamp"])
    timeless = leave_one_out(pack(Interactions.from_frame(table, order="file"))).train
    with pytest.raises(UserError, match="times are asked for"):
        Loader(timeless, batch_size=1, times=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_batches_on_a_gpu_equal_those_on_the_cpu() -> None:
    train = windows()
    here = Loader(train, batch_size=16, shuffle_seed=0, times=True)
    there = Loader(train, batch_size=16, shuffle_seed=0, times=True, device="cuda")
    for one, other in zip(here.epoch(1), there.epoch(1), strict=True):
        assert other.items.is_cuda
        assert same(one, SeqBatch(*(field.cpu() for field in other)))
