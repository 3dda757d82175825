"""Shapes that do not depend on values: the same losses and gradients as without padding, and no step that waits for the device."""

from __future__ import annotations

import json
import traceback
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seqcl.augment import Identity, Pair, View
from seqcl.config import experiment
from seqcl.data import Loader, Split, leave_one_out, markov
from seqcl.encoders.dropout import Dropout
from seqcl.encoders.layout import Layout
from seqcl.errors import UserError
from seqcl.experiment import training_batches
from seqcl.models import MODELS, Recommender
from seqcl.shapes import fixed_shapes, half_above, step_above
from seqcl.training import Trainer
from seqcl.training.compiled import compiled
from seqcl.training.learner import Learner
from seqcl.types import PAD, SeqBatch

CPU = torch.device("cpu")
FIXED, PACKED = Trainer(batch_size=16, shapes="fixed"), Trainer(batch_size=16, shapes="packed")
LOG = markov(users=60, items=30, length=12, branching=2, seed=1).interactions


def built(model: str, *, windows: str = "sliding", **options: object) -> tuple[Recommender, Split]:
    """A model in float64 that draws no dropout."""
    config = experiment({"model": model, "dataset": "x", "encoder": {"dim": 8}} | options)
    split = leave_one_out(config.data.sequences(LOG), max_len=20, windows=windows)
    torch.manual_seed(0)
    made = config.build(split.train).double()
    for part in made.modules():
        if isinstance(part, Dropout):
            part.rate = 0.0
    return made, split


def step(model: Recommender, split: Split, trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients of the first batch of an epoch, the same draws each time."""
    batch = next(training_batches(split, trainer, seed=0, device=CPU, times=model.objective.times_needed).epoch(0))
    torch.manual_seed(1)
    model.zero_grad()
    with fixed_shapes(trainer.fixed_on(CPU)):
        losses = model(batch)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    return losses, {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def assert_same_step(model: Recommender, split: Split) -> None:
    (packed, wanted), (fixed, found) = step(model, split, PACKED), step(model, split, FIXED)
    assert {name: value.item() for name, value in fixed.items()} == pytest.approx(
        {name: value.item() for name, value in packed.items()}, abs=1e-9
    )
    assert wanted.keys() == found.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 100, 1000, 1025, 12_345])
def test_a_step_adds_at_most_an_eighth_and_there_are_eight_to_the_double(size: int) -> None:
    assert size <= step_above(size) <= size * 9 / 8
    assert len({step_above(one) for one in range(size, 2 * size)}) <= 17


@pytest.mark.parametrize(
    ("size", "most", "width"), [(50, 50, 50), (26, 50, 50), (25, 50, 25), (9, 50, 13), (3, 50, 7), (5, 5, 5)]
)
def test_a_width_is_the_longest_or_a_part_of_it(size: int, most: int, width: int) -> None:
    assert half_above(size, most) == width


@pytest.mark.parametrize("windows", ["last", "sliding", "prefix"])
def test_fixed_batches_are_the_trimmed_ones_and_know_where_their_targets_are(windows: str) -> None:
    _, split = built("SASRec", windows=windows)
    loaders = [Loader(split.train, batch_size=7, shuffle_seed=0, fixed=fixed) for fixed in (False, True)]
    for trimmed, fixed in zip(*(loader.epoch(0) for loader in loaders), strict=True):
        width = trimmed.items.shape[1]
        assert fixed.items[:, :width].equal(trimmed.items) and not fixed.items[:, width:].any()
        assert fixed.targets is not None and fixed.positions is not None and trimmed.positions is None
        assert fixed.positions[fixed.positions >= 0].equal((fixed.targets.flatten() != PAD).nonzero()[:, 0])
        assert len(fixed.positions) == step_above(int((fixed.targets != PAD).sum()))


@pytest.mark.parametrize(
    "loss",
    [
        {},
        {"smoothing": 0.1, "bias": True},
        {"loss": "sampled_softmax", "negatives": 40},
        {"loss": "sampled_softmax", "negatives": 4, "sampling": "popularity", "correction": "both"},
        {"loss": "bce", "negatives": 3, "shared": True},
        {"loss": "gbce", "negatives": 8},
        {"loss": "bpr", "negatives": 5, "similarity": "dot", "temperature": 1.0},
    ],
    ids=lambda loss: "-".join(map(str, loss.values())) or "softmax",
)
def test_every_loss_and_its_gradient_are_the_same_with_fixed_shapes(loss: dict[str, object]) -> None:
    assert_same_step(*built("SASRec", next_item=loss))


@pytest.mark.parametrize("model", ["BERT4Rec", "BSARec", "HSTU"])
@pytest.mark.parametrize("windows", ["sliding", "prefix"])
def test_every_encoder_of_attention_blocks_is_the_same_with_fixed_shapes(model: str, windows: str) -> None:
    model_, split = built(model, windows=windows)
    if model == "BERT4Rec":  # masks are drawn by place, so other widths draw others
        rows = next(training_batches(split, FIXED, seed=0, device=CPU).epoch(0))
        marks = torch.zeros(len(rows.items), rows.items.shape[1] + 1, dtype=torch.bool)
        marks[torch.arange(len(marks)), rows.lengths // 2] = True
        model_.objective.parts["next_item"].marks = lambda rows: marks[:, : rows.items.shape[1]]
    assert_same_step(model_, split)


class Half(View):
    """Keep the older half of a row."""

    def forward(self, batch: SeqBatch, generator: torch.Generator) -> SeqBatch:
        kept = (batch.lengths + 1) // 2
        time = torch.arange(batch.items.shape[1])
        return SeqBatch(batch.items.masked_fill(time >= kept[:, None], PAD), kept, users=batch.users)


@pytest.mark.parametrize("model", ["CL4Rec", "SupConRec", "MoCoRec", "SimSiamRec", "BarlowRec", "VICRegRec"])
def test_a_contrast_of_views_is_the_same_with_fixed_shapes(model: str) -> None:
    made, split = built(model)
    contrast = made.objective.parts["contrast"]
    contrast.views = Pair(views=[Identity(), Half()])
    (_, before), state = step(made, split, PACKED), {name: one.clone() for name, one in made.state_dict().items()}
    assert before
    steps = []
    for trainer in (PACKED, FIXED):
        made.load_state_dict(state)
        steps.append(step(made, split, trainer))
    (packed, wanted), (fixed, found) = steps
    for name, value in packed.items():
        torch.testing.assert_close(fixed[name], value, rtol=1e-9, atol=1e-9)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
def test_a_target_too_rare_for_its_probability_has_the_right_loss_and_fillers_count_for_nothing(loss: str) -> None:
    from seqcl.losses import LOSSES

    table, states = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)[:3] * 2000
    states[2] = torch.nan_to_num(torch.tensor(torch.inf)) / 1e300
    targets, real = torch.tensor([0, 1, 3]), torch.tensor([True, True, False])
    targets[1] = 2  # its probability is exp(-2000)
    more = {"negatives": torch.tensor([0, 1])} if loss == "sampled_softmax" else {}
    with fixed_shapes():
        found = LOSSES.find(loss)(states.requires_grad_(), table, targets, real=real, **more)
    gain = torch.tensor(4 / 2).log().item() if more else 0.0  # log of the draws over log of the chance
    assert found.item() == pytest.approx(1000 + gain / 2, rel=1e-3)
    found.backward()
    assert states.grad is not None and not states.grad[2].any() and states.grad[1].any()


class Waits(TorchDispatchMode):
    """Notes what would make a step wait for the device: a value or a shape that is read back."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def note(self, what: str) -> None:
        where = [frame for frame in traceback.extract_stack() if "/seqcl/" in frame.filename]
        self.found.add(f"{what} at {where[-1].filename.rpartition('/seqcl/')[2]}: {where[-1].line}")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).removeprefix("aten.").split(".")[0]
        if name in {"nonzero", "_local_scalar_dense", "_unique2", "unique_dim", "bincount", "repeat_interleave"}:
            self.note(name)
        if name == "index" and any(one is not None and one.dtype == torch.bool for one in args[1]):
            self.note("a mask as an index")
        return func(*args, **(kwargs or {}))


WAITING = {
    "GRU4Rec": "rows are packed by their lengths",
    "NARM": "the same",
    "ICLRec": "are there clusters yet",
    "ICSRec": "the same",
    "MCLRec": "the number of steps of the augmenters",
    "MoCoV3Rec": "the number of steps, for the momentum",
    "BYOLRec": "the same",
    "AlignUniformRec": "the number of pairs",
    "CauseRec": "have all rows a target",
    "CASR": "is there a copy yet, and which rows are kept",
    "SwAVRec": "which prototypes are used",
    "PIRLRec": "which users are in the batch",
    "SpCLRec": "the same, and which of them are in clusters",
    "PCLRec": "are there clusters yet",
    "MiCERec": "which experts are used",
    "CCLRec": "how strong its views are by now",
    "InfoMinRec": "augmenters learn in a pass of their own",
    "LooCRec": "the draws that its views repeat",
    "GraphCLRec": "the transitions of the rows",
    "SGLRec": "the edges that are kept",
    "CPCRec": "which items are in the batch",
    "MMInfoRec": "the same",
    "DIMRec": "the same",
    "DirectAU": "where the targets are",
    "Distil": "which states its teachers score",
    "BSARec": "every state is a row of its own",
}
"""Recipes that look at a value or two of the device in a step, and at what."""


@pytest.mark.parametrize(
    "name", [name for name, kind in MODELS.items() if issubclass(kind, Recommender) and name != "TwoTower"]
)
def test_no_step_waits_for_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"next_item": {"loss": "sampled_softmax", "negatives": 20, "sampling": "popularity"}}
    model, split = built(name, **({} if name == "DirectAU" else options))
    learner = Learner(model, device=CPU, precision="32", weight_decay=0.01, ema=0.9, fixed=True)
    batches = training_batches(split, FIXED, seed=0, device=CPU, times=model.objective.times_needed)
    model.objective.before_epoch(model.encoder, batches, epoch=0, epochs=1)
    waits = Waits()
    for method in ("tolist", "cpu", "numpy"):
        plain = getattr(Tensor, method)
        monkeypatch.setattr(
            Tensor,
            method,
            lambda self, *a, plain=plain, method=method, **k: (waits.note(method), plain(self, *a, **k))[1],
        )
    for number, batch in zip(range(2), batches.epoch(0), strict=False):
        with waits:
            total, losses = learner.backward(learner.forward(batch))
            learner.optimizer.step(0.01)
            learner.average.update(number + 1)  # type: ignore[union-attr]
            model.objective.after_step(model.encoder)
            learner.meter.add_step(
                losses,
                model.objective.observed,
                total=total,
                items=batch.lengths.sum(),
                missing=model.objective.missing,
            )
        assert all(bool(torch.isfinite(value)) for value in losses.values())
    assert bool(waits.found) == (name in WAITING), waits.found


def test_packed_shapes_do_wait_so_that_the_test_above_can_see_it() -> None:
    model, split = built("CL4Rec")
    batch = next(training_batches(split, PACKED, seed=0, device=CPU).epoch(0))
    with Waits() as waits:
        model(batch)
    assert any("nonzero" in one for one in waits.found) and any("bincount" in one for one in waits.found)


@pytest.mark.parametrize("name", ["SASRec", "BERT4Rec"])
def test_a_compiled_encoder_gives_the_same_losses_and_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the last stage, the making of kernels, which needs a C++ compiler and minutes."""
    monkeypatch.setattr(
        torch, "compile", lambda plain, dynamic, mode: COMPILE(plain, dynamic=dynamic, backend="aot_eager")
    )
    model, split = built(name)
    if name == "BERT4Rec":
        model.objective.parts["next_item"].marks = lambda rows: rows.items > 10
    losses, wanted = step(model, split, FIXED)
    with compiled(model.encoder):
        fast, found = step(model, split, FIXED)
        assert torch._dynamo.utils.counters["frames"]["ok"] and not torch._dynamo.utils.counters["graph_break"]
    for key, value in losses.items():
        torch.testing.assert_close(fast[key], value, rtol=1e-9, atol=1e-9)
    for key, gradient in wanted.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-6, atol=1e-9, msg=key)
    assert "forward" not in vars(model.encoder) and "last" not in vars(model.encoder)


COMPILE = partial(torch.compile)


def test_what_cannot_be_compiled_is_refused() -> None:
    with pytest.raises(UserError, match=r"train.compile needs shapes that come again"):
        Trainer(compile=True, shapes="packed")
    with pytest.raises(UserError, match=r"train.shapes.*fixed"):
        Trainer(shapes="fix")  # type: ignore[arg-type]
    model, split = built("GRU4Rec")
    batches = training_batches(split, Trainer(compile=True), seed=0, device=CPU)
    with pytest.raises(UserError, match=r"train.compile: the encoder GRU"):
        Trainer(compile=True).fit(model, batches, progress=False)
    assert Trainer().fixed_on("cuda") and Trainer(compile=True).fixed_on("cpu") and not Trainer().fixed_on("cpu")


def test_the_benchmark_of_a_gpu_runs_and_refuses_a_machine_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import gpu

    gpu.main(["--device", "cpu", "--smoke"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["way"] for row in found["rows"]] == ["packed", "fixed"]
    for row in found["rows"]:
        assert row["items_per_second"] > 0 and row["kernel_share"] > 0 and row["floor_arithmetic_ms"] > 0
    for words, said in [
        (["--device", "cpu"], "what is measured here is a GPU"),
        (["--ways", "fast"], "fast is not one of packed, fixed"),
        *([] if torch.cuda.is_available() else [([], "there is no CUDA device here")]),
    ]:
        with pytest.raises(SystemExit):
            gpu.main(words)
        assert said in capsys.readouterr().err


def test_the_products_of_a_step_are_counted() -> None:
    from benchmarks import gpu

    options = {"dim": 8, "positions": "end", "layers": 1, "hidden": 1}
    _, split = built("SASRec", encoder=options)
    batch = next(training_batches(split, PACKED, seed=0, device=CPU).epoch(0))
    blocks, width = Layout(batch).blocks
    tokens, targets = blocks * width, int((batch.targets != PAD).sum())  # type: ignore[operator]
    linear = 2 * 6 * 8 * 8 * tokens  # query, key and value, output, two of the feed-forward part
    attention = 2 * 2 * blocks * width * width * 8  # scores and reads
    softmax = 2 * targets * 8 * split.train.num_items
    one = experiment({"model": "SASRec", "dataset": "x", "encoder": options})
    found = gpu.needed(one, split, 16)["operations"]
    assert found == pytest.approx(3 * (linear + attention + softmax), rel=0.1)
