"""The loop: its arithmetic, its end, and the files of a run."""

from __future__ import annotations

import ast
import csv
import graphlib
import itertools
import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seqcl.training
from seqcl.errors import UserError
from seqcl.report import plot_curves, read_history
from seqcl.training import Callback, Clock, Diverged, Interrupted, Row, Trainer, load_checkpoint, telling
from seqcl.training.average import Average
from seqcl.training.line import Line, describe, duration
from seqcl.training.meter import Meter
from seqcl.training.optimizer import AdamW, trained_parameters
from seqcl.training.schedule import learning_rate
from seqcl.training.trackers import TensorBoard
from seqcl.types import SeqBatch
from tests.tiny_training import BATCH, ITEMS, LENGTH, ROWS, TRAINER, TinyLoader, TinyModel, plain, timeless, train

Metrics = Callable[[], dict[str, float]]


def plain_loop(trainer: Trainer) -> TinyModel:
    """Train as `fit` must, by torch's own optimizer and with nothing around it."""
    model, loader = TinyModel(), TinyLoader()
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": trainer.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, fused=True)
    total, step = trainer.epochs * len(loader), 0
    for epoch in range(trainer.epochs):
        model.objective.before_epoch(model.encoder, loader, epoch=epoch, epochs=trainer.epochs)
        for batch in loader.epoch(epoch):
            torch.stack(list(model(batch).values())).sum().backward()
            if trainer.clip:
                nn.utils.clip_grad_norm_(list(model.parameters()), trainer.clip)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(
                    step, peak=trainer.lr, warmup=trainer.warmup, total=total, schedule=trainer.schedule
                )
            optimizer.step()
            optimizer.zero_grad()
            model.objective.after_step(model.encoder)
            step += 1
    return model


def scripted(values: list[float]) -> Metrics:
    """Make a `validate` that gives these values of ndcg@10, one a call."""
    calls = iter(values)
    return lambda: {"ndcg@10": next(calls), "recall@10": 0.0}


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    "trainer",
    [plain(epochs=3), plain(epochs=3, lr=0.05, warmup=4, schedule="cosine", weight_decay=0.3, clip=0.2)],
    ids=["plain", "everything on"],
)
def test_fit_gives_the_weights_of_a_plain_loop_with_torchs_optimizer(trainer: Trainer) -> None:
    model, result = train(None, trainer=trainer, validate=None)
    assert torch.equal(weights(model), weights(plain_loop(trainer)))
    assert (result.epochs, result.steps, result.stopped, result.best) == (3, 18, "epochs", None)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 3},
        {"lr": 0.04},
        {"weight_decay": 0.2},
        {"warmup": 0},
        {"schedule": "constant"},
        {"clip": 0.0},
        {"precision": "bf16"},
        {"eval_every": 1},
        {"patience": 1},
        {"monitor": "recall@10"},
        {"ema": 0.0},
        {"max_minutes": 1e-9},
    ],
    ids=str,
)
def test_every_option_of_the_trainer_changes_something(change: dict[str, Any]) -> None:
    def validate(number: Iterator[int]) -> Metrics:
        def metrics() -> dict[str, float]:
            call = next(number)
            return {"ndcg@10": -float(call), "recall@10": float(call)}

        return metrics

    trainer = replace(TRAINER, epochs=8)
    one, result = train(None, trainer=trainer, validate=validate(itertools.count()))
    other, changed = train(None, trainer=replace(trainer, **change), validate=validate(itertools.count()))
    assert not torch.equal(weights(one), weights(other)) or timeless(result) != timeless(changed)


def test_the_rate_rises_over_the_warmup_and_falls_along_a_cosine_to_zero() -> None:
    def rates(schedule: Any) -> list[float]:
        return [learning_rate(step, peak=2.0, warmup=4, total=12, schedule=schedule) for step in range(13)]

    assert rates("constant") == [0.5, 1.0, 1.5] + [2.0] * 10
    cosine = [1 + math.cos(math.pi * step / 8) for step in range(9)]
    assert rates("cosine") == pytest.approx([0.5, 1.0, 1.5, 2.0, *cosine], abs=1e-12)


@pytest.mark.parametrize(("shape", "decayed"), [((), False), ((3,), False), ((2, 3), True), ((2, 3, 4), True)])
def test_parameters_of_at_most_one_dimension_have_no_decay(shape: tuple[int, ...], decayed: bool) -> None:
    parameter = nn.Parameter(torch.ones(shape))
    parameter.grad = torch.zeros(shape)
    AdamW({"bias": parameter}, weight_decay=0.5).step(0.1)
    assert torch.equal(parameter.detach(), torch.full(shape, 0.95 if decayed else 1.0))


def test_rows_of_a_sparse_gradient_move_as_those_of_a_dense_one_and_the_others_stand_still() -> None:
    tables = [nn.Embedding(6, 3, sparse=sparse) for sparse in (False, True)]
    tables[1].load_state_dict(tables[0].state_dict())
    before = tables[0].weight.detach().clone()
    optimizers = [AdamW(trained_parameters(table), weight_decay=0.1) for table in tables]
    rows = torch.tensor([4, 1, 1, 3])
    for _ in range(5):
        for table, optimizer in zip(tables, optimizers, strict=True):
            (table(rows) * torch.arange(12.0).view(4, 3)).square().sum().backward()
            optimizer.step(0.01)
    touched = [1, 3, 4]
    torch.testing.assert_close(tables[0].weight[touched], tables[1].weight[touched])
    assert torch.equal(tables[1].weight[[0, 2, 5]], before[[0, 2, 5]])
    assert not torch.equal(tables[1].weight[touched], before[touched])


def test_a_parameter_without_gradient_stands_still() -> None:
    layer = nn.Linear(3, 3)
    optimizer = AdamW(trained_parameters(layer), weight_decay=0.5)
    before = layer.bias.detach().clone()
    for _ in range(3):
        layer.weight.grad = torch.ones(3, 3)
        optimizer.step(0.1)
    assert torch.equal(layer.bias, before)
    assert optimizer.steps.tolist() == [3.0, 0.0]
    assert layer.weight.grad is None


def test_the_average_follows_its_definition_and_leaves_the_weights_as_they_were() -> None:
    layer = nn.Linear(2, 1, bias=False)
    average = Average(trained_parameters(layer), decay=0.5)
    expected = layer.weight.detach().double()
    for step in range(1, 20):
        layer.weight.data.normal_()
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * layer.weight.detach().double()
    before = layer.weight.detach().clone()
    with pytest.raises(RuntimeError, match="in between"), average.swapped_in():
        torch.testing.assert_close(layer.weight.double(), expected, rtol=1e-5, atol=1e-6)
        raise RuntimeError("in between")
    assert torch.equal(layer.weight, before)


def test_training_stops_when_patience_is_used_up_and_gives_back_the_best_weights(tmp_path: Path) -> None:
    trainer = plain(epochs=50, patience=3)
    model, result = train(tmp_path, trainer=trainer, validate=scripted([0.1, 0.3, 0.2, 0.3, 0.1, 0.9]))
    assert (result.stopped, result.epochs, result.best_epoch, result.best) == ("patience", 5, 2, 0.3)
    assert result.metrics == {"ndcg@10": 0.3, "recall@10": 0.0}
    best, _ = train(None, trainer=replace(trainer, epochs=2), validate=None)
    assert torch.equal(weights(model), weights(best))
    in_memory, _ = train(None, trainer=trainer, validate=scripted([0.1, 0.3, 0.2, 0.3, 0.1, 0.9]))
    assert torch.equal(weights(in_memory), weights(best))
    tensors, state = load_checkpoint(tmp_path / "checkpoints" / "best.safetensors", prefix="model.")
    assert torch.equal(tensors["model.encoder.table.weight"], model.encoder.table.weight)
    assert (state["epoch"], state["metrics"]["ndcg@10"]) == (2, 0.3)


@pytest.mark.parametrize("folder", [True, False])
def test_what_is_validated_is_what_is_kept(tmp_path: Path, folder: bool) -> None:
    model, seen = TinyModel(), []

    def validate() -> dict[str, float]:
        assert not model.training and not torch.is_grad_enabled()
        seen.append(weights(model))
        return {"ndcg@10": [0.1, 0.4, 0.2][len(seen) - 1]}

    trainer = plain(epochs=3, ema=0.95, lr=0.01)
    trainer.fit(model, TinyLoader(), validate=validate, folder=tmp_path if folder else None, progress=False)
    assert torch.equal(weights(model), seen[1])
    assert not model.training


def test_history_has_a_row_an_epoch_with_the_means_of_its_steps(tmp_path: Path) -> None:
    terms: list[dict[str, float]] = []

    class Recording(TinyModel):
        def forward(self, batch: SeqBatch) -> dict[str, Tensor]:
            found = super().forward(batch)
            terms.append({name: value.item() for name, value in found.items()})
            return found

    model = Recording()
    result = plain(epochs=3, eval_every=2).fit(
        model, TinyLoader(), validate=model.score, folder=tmp_path, progress=False
    )
    rows = read_history(tmp_path / "history.csv")
    assert rows == result.history
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [6, 12, 18]
    assert ["valid_ndcg@10" in row for row in rows] == [False, True, True]
    for epoch, row in enumerate(rows):
        mine = terms[6 * epoch : 6 * epoch + 6]
        for name in ("next_item", "contrast"):
            assert row[f"loss_{name}"] == pytest.approx(sum(term[name] for term in mine) / 6, rel=1e-6)
        assert row["loss"] == pytest.approx(row["loss_next_item"] + row["loss_contrast"], rel=1e-6)
        assert row["items_per_second"] * row["train_seconds"] == pytest.approx(ROWS * (LENGTH - 1))
        assert math.isfinite(row["observed_alignment"]) and math.isfinite(row["observed_uniformity"])
    with open(tmp_path / "history.csv", newline="", encoding="utf-8") as file:
        header = next(csv.reader(file))
    assert header[:3] == ["epoch", "step", "seconds"]


def test_the_loop_never_reads_the_device_within_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    for name in ("item", "tolist", "__float__", "__bool__", "cpu", "numpy"):
        original = getattr(Tensor, name)

        def counted(self: Tensor, *arguments: Any, original: Any = original, name: str = name) -> Any:
            reads.append(name)
            return original(self, *arguments)

        monkeypatch.setattr(Tensor, name, counted)
    train(None, trainer=plain(epochs=1), validate=None)
    assert reads == ["tolist"]


def test_a_loss_that_is_not_finite_stops_with_its_step_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    class Breaking(TinyModel):
        calls = 0

        def forward(self, batch: SeqBatch) -> dict[str, Tensor]:
            self.calls += 1
            terms = super().forward(batch)
            return terms | {"contrast": terms["contrast"] * math.inf} if self.calls == 9 else terms

    model = Breaking()
    with pytest.raises(Diverged, match=r"'contrast' is not finite at step 9 \(epoch 2, batch 3 of 6\).*last\.safetens"):
        plain(epochs=3).fit(model, TinyLoader(), validate=model.score, folder=tmp_path, progress=False)
    tensors, state = load_checkpoint(tmp_path / "checkpoints" / "last.safetensors")
    assert state["step"] == 6
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_an_observed_value_that_is_not_finite_stops_nothing() -> None:
    meter = Meter()
    for value in (1.0, math.nan, 3.0):
        meter.add({"loss_a": torch.tensor(2.0), "observed_b": torch.tensor(value)})
    assert meter.flush() is None
    assert meter.means() == {"loss_a": 2.0, "observed_b": 2.0}


def test_a_term_that_begins_late_is_averaged_over_its_own_steps() -> None:
    meter = Meter()
    meter.add({"loss_a": torch.tensor(1.0)})
    meter.add({"loss_a": torch.tensor(2.0), "loss_b": torch.tensor(5.0)})
    meter.flush()
    assert meter.means() == {"loss_a": 1.5, "loss_b": 5.0}


@pytest.fixture
def foreground() -> Iterator[None]:
    """Let Ctrl-C act as in a process that a user started, even where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("foreground")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_says_where(tmp_path: Path, number: signal.Signals) -> None:
    def before(epoch: int, batch: int) -> None:
        if (epoch, batch) == (1, 2):
            os.kill(os.getpid(), number)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        train(tmp_path, before=before)
    stop, last = caught.value, tmp_path / "checkpoints" / "last.safetensors"
    assert (stop.signal, stop.epoch, stop.step) == (number.name, 2, 9)
    assert (stop.folder, stop.checkpoint) == (tmp_path, last)
    assert stop.where == f"stopped by {number.name} in epoch 2 after step 9"
    assert str(stop) == f"{stop.where}; saved in {last}"
    assert load_checkpoint(last)[1]["step"] == 9
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    with pytest.raises(Interrupted, match="nothing was saved, as the run has no folder") as caught:
        train(None, before=before)
    assert caught.value.folder is None and caught.value.checkpoint is None
    assert str(Interrupted(signal="SIGINT", folder=tmp_path)) == f"stopped by SIGINT; the run folder is {tmp_path}"


@pytest.mark.usefixtures("foreground")
def test_a_second_ctrl_c_stops_at_once() -> None:
    def before(epoch: int, batch: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(None, before=before)


def test_a_background_job_goes_on_ignoring_ctrl_c() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _, result = train(
            None, trainer=plain(epochs=1), before=lambda epoch, batch: os.kill(os.getpid(), signal.SIGINT)
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.steps == len(TinyLoader())


def test_minutes_end_a_run_with_a_validation_and_the_epoch_cut_short_is_not_counted(tmp_path: Path) -> None:
    trainer = plain(epochs=1000, patience=0, max_minutes=10, lr=0.01)
    now = [0.0]

    def before(epoch: int, batch: int) -> None:
        now[0] += 60.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", lambda: now[0])
        _, result = train(tmp_path, trainer=trainer, before=before, clock=Clock(spent=120.0))
        assert (result.stopped, result.epochs, result.steps) == ("minutes", 1, 8)
        assert [row["step"] for row in result.history] == [6, 8]
        assert "valid_ndcg@10" in result.history[-1]
        _, longer = train(tmp_path, trainer=replace(trainer, epochs=3, max_minutes=0), resume=True)
    assert [row["step"] for row in longer.history] == [6, 8, 12, 18]  # step 8 was validated, and may be the best
    uncut, _ = train(None, trainer=replace(trainer, epochs=3, max_minutes=0), validate=None)
    last, _ = load_checkpoint(tmp_path / "checkpoints" / "last.safetensors", prefix="model.")
    assert torch.equal(last["model.encoder.table.weight"], uncut.encoder.table.weight)


@pytest.mark.parametrize("change", [{"max_minutes": 1e-9}, {"epochs": 1}], ids=str)
def test_a_run_that_goes_on_without_time_or_epochs_left_is_validated(tmp_path: Path, change: dict[str, Any]) -> None:
    def before(epoch: int, batch: int) -> None:
        if (epoch, batch) == (1 if "epochs" in change else 0, 2):
            os.kill(os.getpid(), signal.SIGTERM)

    trainer = plain(epochs=9, patience=0, eval_every=5)
    with pytest.raises(Interrupted):
        train(tmp_path, trainer=trainer, before=before)
    model, result = train(tmp_path, trainer=replace(trainer, **change), resume=True)
    assert (tmp_path / "checkpoints" / "best.safetensors").exists()
    assert (result.best, result.best_epoch) == (model.score()["ndcg@10"], result.epochs + 1)
    assert (result.history[-1]["step"], result.history[-1]["valid_ndcg@10"]) == (result.steps, result.best)


def test_a_run_whose_time_ends_behind_an_epoch_that_is_not_validated_ends_with_a_validation() -> None:
    now = [0.0]

    class Slow(Callback):
        def epoch(self, row: Row) -> None:
            now[0] += 600.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", lambda: now[0])
        _, result = train(None, trainer=plain(epochs=99, eval_every=5, max_minutes=5), callbacks=[Slow()])
    assert (result.stopped, result.steps, result.epochs) == ("minutes", 7, 1)
    assert ["valid_ndcg@10" in row for row in result.history] == [False, True]


def test_a_validation_of_an_epoch_that_was_cut_short_counts_and_keeps_its_row(tmp_path: Path) -> None:
    now = [0.0]

    def before(epoch: int, batch: int) -> None:
        now[0] += 60.0

    trainer = plain(epochs=3, patience=3, max_minutes=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", lambda: now[0])
        train(tmp_path, trainer=trainer, before=before, validate=scripted([0.3, 0.2]))
    _, result = train(
        tmp_path, trainer=replace(trainer, max_minutes=0), resume=True, validate=scripted([0.1, 0.05, 0.0])
    )
    assert [row["valid_ndcg@10"] for row in result.history] == [0.3, 0.2, 0.1, 0.05]
    assert load_checkpoint(tmp_path / "checkpoints" / "last.safetensors")[1]["stale"] == 3


def test_one_clock_counts_all_stages_and_what_came_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock = Clock(spent=5.0)
    assert (clock.total(), clock.out_of_time()) == (5.0, False)
    now[0] += 10  # preparation
    clock.begin(limit=60.0, earlier=20.0)
    now[0] += 3
    assert (clock.here(), clock.seconds(), clock.total(), clock.left()) == (3.0, 23.0, 38.0, 22.0)
    clock.reserve = 22.0
    assert clock.out_of_time()
    clock.begin(limit=60.0, earlier=0.0)  # a second stage: the first still counts, its validations do not
    now[0] += 4
    assert (clock.lap(), clock.lap(), clock.seconds(), clock.total()) == (4.0, 0.0, 4.0, 42.0)
    clock.add(17.0)
    assert (clock.seconds(), clock.left(), clock.earlier, clock.out_of_time()) == (4.0, 1.0, 37.0, False)
    now[0] += 1
    assert clock.out_of_time()
    clock.begin(limit=0.0, earlier=0.0)
    assert not clock.out_of_time() and clock.left() == math.inf


def test_a_clock_given_to_two_stages_ends_the_second_one_earlier() -> None:
    now = [0.0]

    def before(epoch: int, batch: int) -> None:
        now[0] += 60.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", lambda: now[0])
        clock = Clock()
        _, first = train(None, trainer=plain(epochs=1, max_minutes=10), before=before, clock=clock)
        _, second = train(None, trainer=plain(epochs=9, max_minutes=10), before=before, clock=clock)
    assert (first.stopped, first.steps, first.seconds) == ("epochs", 6, 360.0)
    assert (second.stopped, second.steps, second.seconds) == ("minutes", 4, 240.0)


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Nothing is no torch\.nn\.Module"):
        plain().fit(type("Nothing", (), {})(), TinyLoader())  # type: ignore[arg-type]


def test_no_two_files_of_the_room_import_each_other_not_even_for_types() -> None:
    room = Path(seqcl.training.__file__).parent
    imports = {
        path.stem: {
            node.module.rpartition(".")[2]
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("seqcl.training.")
        }
        for path in room.glob("*.py")
        if path.stem != "__init__"
    }
    assert "trainer" in imports and "saver" in imports["trainer"]
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError


def test_checkpoints_are_as_far_apart_as_asked(tmp_path: Path) -> None:
    now, written = [0.0], []
    last = tmp_path / "checkpoints" / "last.safetensors"

    def before(epoch: int, batch: int) -> None:
        now[0] += 60.0
        written.append(load_checkpoint(last)[1]["step"] if last.exists() else 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", lambda: now[0])
        train(tmp_path, trainer=plain(epochs=2, save_minutes=4), validate=None, before=before)
    assert written == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8]


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"train\.monitor 'ndgc@10': did you mean ndcg@10"):
        train(None, trainer=plain(monitor="ndgc@10", epochs=1))


@pytest.mark.parametrize(("name", "value"), [("lr", -1.0), ("ema", 1.0), ("eval_every", 0), ("batch_size", 0)])
def test_an_option_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"train\.{name} is {value}"):
        plain(**{name: value})


def test_bf16_computes_in_bfloat16_and_leaves_weights_and_times_alone() -> None:
    seen: dict[str, Any] = {}

    class Looking(TinyModel):
        def forward(self, batch: SeqBatch) -> dict[str, Tensor]:
            assert batch.times is not None
            seen["product"] = self.encoder.layer(torch.ones(1, 8)).dtype
            seen["times"] = batch.times[0, 0].item()
            return super().forward(batch)

    model = Looking()
    plain(epochs=1, precision="bf16").fit(model, TinyLoader(), progress=False)
    assert seen == {"product": torch.bfloat16, "times": 1.7e9 + 1}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_events_hold_what_history_holds_also_after_a_break(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def before(epoch: int, batch: int) -> None:
        if (epoch, batch) == (2, 3):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted), telling([board := TensorBoard()], tmp_path, {}):
        train(tmp_path, before=before, callbacks=[board])
    with telling([board := TensorBoard()], tmp_path, {}):
        _, result = train(tmp_path, resume=True, callbacks=[board])
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for tag, name in {
        "loss/next_item": "loss_next_item",
        "valid/ndcg@10": "valid_ndcg@10",
        "loss/total": "loss",
    }.items():
        rows = [row for row in result.history if name in row]
        # files of one second are read in the order of their names, which is not that of their steps
        written = sorted((event.step, event.value) for event in events.Scalars(tag))
        assert [step for step, _ in written] == [row["step"] for row in rows]
        assert [value for _, value in written] == pytest.approx([row[name] for row in rows])


def test_a_line_names_terms_speed_metric_best_and_time_left() -> None:
    row = {"epoch": 3, "loss": 7.0, "loss_next_item": 6.8, "loss_contrast": 0.2, "items_per_second": 41234.5}
    row |= {"valid_ndcg@10": 0.0523}
    line = describe(row, epochs=200, done=0.418, monitor="ndcg@10", best=0.0531, best_epoch=2, left=3725.0)
    assert line == (
        "epoch 3/200  42%  next_item 6.8000  contrast 0.2000  41,234 items/s  ndcg@10 0.0523  "
        "best 0.0531 (epoch 2)  at most 1:02:05 left"
    )
    assert [duration(seconds) for seconds in (0.4, 59.6, 751)] == ["0:00", "1:00", "12:31"]


def test_without_a_terminal_every_epoch_is_one_plain_line_also_in_the_log(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="seqcl"):
        train(None, trainer=plain(epochs=2), progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    assert [record.getMessage() for record in caplog.records] == lines


def test_on_a_terminal_the_line_is_live_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    line = Line(shown=True, pause=60)
    assert line.due
    line.refresh("epoch 1/2")
    assert not line.due
    line.epoch("epoch 2/2 " + "x" * 500)
    line.close()
    text = terminal.getvalue()
    assert "epoch 1/2" in text and "epoch 2/2" in text
    assert text.count("\n") <= 2, "a long line must be cut, not wrapped"


def test_curves_are_drawn_with_and_without_views_and_from_a_single_epoch(tmp_path: Path) -> None:
    rows = [
        {"epoch": e, "loss_next_item": 7 / e, "valid_ndcg@10": 0.01 * e, "valid_ndcg@5": 0.005 * e} for e in (1, 2, 3)
    ]
    views = [row | {"observed_contrast_alignment": 0.5, "observed_contrast_uniformity": -2.0} for row in rows]
    for name, history in {"plain": rows, "views": views, "one": views[:1], "none": []}.items():
        plot_curves(history, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    widths = {
        name: int.from_bytes((tmp_path / f"{name}.png").read_bytes()[16:20], "big") for name in ("plain", "views")
    }
    assert widths == {"plain": 1000, "views": 1500}


def test_a_run_imports_no_compiler_and_still_knows_compiled_modules() -> None:
    script = (
        "import sys; from tests.tiny_training import train; train(None)\n"
        "assert 'torch._dynamo' not in sys.modules, 'importing it takes 1.4 s'\n"
        "import torch, lightning_fabric.wrappers as wrappers\n"
        "layer = torch.nn.Linear(2, 2); compiled = torch.compile(layer)\n"
        "assert wrappers._unwrap_compiled(compiled)[0] is layer and wrappers._unwrap_compiled(layer)[0] is layer\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_the_tiny_model_learns_its_rows() -> None:
    _, result = train(None, trainer=plain(epochs=60, lr=0.03), validate=None)
    first, final = result.history[0]["loss_next_item"], result.history[-1]["loss_next_item"]
    assert first > 0.9 * math.log(ITEMS) and final < 0.75 * first, BATCH
