"""The audit of a run: everything that could have seen held-out interactions is made anew and compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from seqcl.data import LeakageError, Split
from seqcl.errors import UserError
from seqcl.experiment.audit import begun, blends, chosen, derived, ranked, windows
from seqcl.experiment.audit.plain import Plain, Target, plain_split
from seqcl.experiment.audit.twin import Trace, compare_traces, first_epochs, stored_losses, trace_of, twin_of
from seqcl.experiment.audit.verdict import Broken, Check, Unused, line
from seqcl.experiment.finished import Finished
from seqcl.experiment.job import training_batches
from seqcl.experiment.keeping import with_kept_files
from seqcl.experiment.ranking import held_out, queries_of
from seqcl.experiment.run import Run
from seqcl.machine import about_machine, library_versions
from seqcl.models import Blend
from seqcl.objectives import Prototypes
from seqcl.training import kept_random_states

NEAR = 1e-3
"""Part by which the losses of an epoch may differ on another machine, with other versions, or where the run was compiled."""


@kept_random_states()
def audit(
    folder: str | Path,
    *,
    device: str = "cpu",
    plugins: Sequence[str] = (),
    batches: int | None = None,
    tell: Callable[[Check], None] = lambda check: None,
) -> list[Check]:
    """Audit a finished run and its baselines, by recomputation from the log in its folder.

    Args:
        folder: a run, or a baseline in one.
        device: where models are trained for an epoch and ranked.
        plugins: files or modules with parts of your own that the run needs.
        batches: train for so many batches; None: for the first epoch, whose losses are then compared with the history.
        tell: gets each line as soon as it is there.

    Raises:
        UserError: no finished run is there, or a plugin is missing.
    """
    if batches is not None and batches < 1:
        raise UserError(f"--batches {batches}: must be 1 or more")
    finished = Finished.read(Path(folder))
    found: list[Check] = []
    for one in [finished, *(Finished.read(path) for path in finished.baselines())]:
        for check in checks_of(one, device, plugins, batches, first=one is finished):
            found.append(check)
            tell(check)
    return found


def checks_of(
    finished: Finished, device: str, plugins: Sequence[str], batches: int | None, *, first: bool
) -> Iterator[Check]:
    """The lines of one model; of a baseline, those of what it uses and its run has not said already."""
    try:
        run = Run.load(finished.folder, device=device, plugins=plugins)
    except LeakageError as error:
        yield Check(model=finished.model, name="split", verdict="broken", told=str(error))
        return
    audited = Audited(run, finished, batches)
    parts = {**(audited.of_the_log() if first else {}), **audited.of_the_model()}
    for name, check in parts.items():
        found = line(finished.model, name, check)
        if first or found.verdict != "not used":
            yield found


class Audited:
    """A run, its split made anew, and what several checks share."""

    def __init__(self, run: Run, finished: Finished, batches: int | None) -> None:
        assert finished.users is not None and finished.targets is not None  # a folder has them, a kept file does not
        self.users, self.targets = finished.users, finished.targets
        self.run, self.finished, self.batches = run, finished, batches
        self.experiment = with_kept_files(run.experiment, run.folder)
        self.plain: Plain = plain_split(run.sequences, finished.protocol)

    def of_the_log(self) -> dict[str, Callable[[], str]]:
        """The checks of the split, which all models of a run share."""
        run, plain = self.run, self.plain
        return {
            "validation targets": lambda: windows.check_targets("valid", plain, plain.valid, self.queries("valid")),
            "test targets": lambda: windows.check_targets("test", plain, plain.test, self.queries("test")),
            "training windows": self.check_rows,
            "popularity": lambda: windows.check_counts(plain, run.split),
            "cuts in time": lambda: windows.check_times(plain, run.sequences, run.experiment),
            "cold items": lambda: windows.check_cold_items(plain, run.split),
            "idle users": lambda: windows.check_idle_users(plain, run.split),
        }

    def of_the_model(self) -> dict[str, Callable[[], str]]:
        """The checks of one model."""
        run, plain, ranks = self.run, self.plain, self.finished.ranks
        model, evaluator = run.model, run.experiment.eval
        ids = run.sequences.user_ids, run.sequences.item_ids
        return {
            "correlations": lambda: derived.check_correlations(model, plain),
            "same-target index": lambda: derived.check_same_target(model, plain, self.learned),
            "chances of negatives": lambda: derived.check_chances(model, plain, self.learned),
            "features": lambda: derived.check_features(self.experiment, model, plain, run.sequences.tables),
            "counted scores": lambda: derived.check_popularity(model, plain),
            "tables and first weights": self.check_made,
            "clusters": self.check_clusters,
            "pre-training": lambda: self.check_epoch("pretraining"),
            "first epoch": lambda: self.check_epoch("training"),
            "memories": lambda: blends.check_memories(model, self.memories, exact=self.same_sums()),
            "choice of a blend": lambda: blends.check_choice(
                model, self.memories, self.experiment, run.sequences, plain, exact=self.same_sums()
            ),
            "early stopping": lambda: chosen.check_stopping(run.experiment, run.folder),
            "choice of weights": lambda: chosen.check_validation(
                run.experiment, run.folder, self.valid, self.network, self.test, self.finished.valid
            ),
            "kept targets": lambda: ranked.check_kept_targets(plain, self.users, self.targets, ids),
            "sampled candidates": lambda: ranked.check_candidates(plain, self.negatives("test"), evaluator),
            "test ranks": lambda: ranked.check_ranks(self.test, ranks, evaluator),
            "test metrics": lambda: chosen.check_test(run.experiment, ranks, self.finished.metrics),
        }

    def queries(self, part: str) -> Any:
        """Batches as a run ranks them."""
        split: Split = self.run.split
        return queries_of(
            {"valid": split.valid, "test": split.test}[part], self.run.experiment.eval, torch.device("cpu")
        )

    @cached_property
    def learned(self) -> Counter[int]:
        """Count how often each item is a target in an epoch of training rows, each of which training may know."""
        run = self.run
        batches = training_batches(
            run.split, run.experiment.train, seed=run.experiment.options.seed, device=torch.device("cpu")
        )
        return windows.check_training_rows(self.plain, batches.epoch(0))

    def check_rows(self) -> str:
        """Look at every training row of an epoch."""
        return f"{len(self.run.split.train):,} rows with {sum(self.learned.values()):,} targets, each within what training may know"

    def negatives(self, part: str) -> Any:
        """The sampled candidates by training counts."""
        return ranked.negatives_of(self.plain, self.run.split, part, self.run.experiment.eval)

    @cached_property
    def valid(self) -> ranked.Bounds:
        """Ranks of the validation targets by the kept weights."""
        return self.ranks(self.plain.valid, "valid")

    @cached_property
    def network(self) -> ranked.Bounds:
        """The same by the network alone, which training was stopped by."""
        if not isinstance(self.run.model, Blend):
            return self.valid
        with blends.network_alone(self.run.model):
            return self.ranks(self.plain.valid, "valid")

    @cached_property
    def memories(self) -> blends.Made:
        """The memories of a blend, counted on the twin."""
        return blends.count_on_twin(self.run.model, self.experiment, self.run.sequences, self.plain)

    @cached_property
    def test(self) -> ranked.Bounds:
        """Ranks of the test targets by the kept weights."""
        return self.ranks(self.plain.test, "test")

    def ranks(self, targets: Sequence[Target], part: str) -> ranked.Bounds:
        """Ranks by the kept weights."""
        run = self.run
        rounding = ranked.ROUNDING if self.same_device() else ranked.ELSEWHERE
        with held_out(run.model, part):
            return ranked.ranks_of(
                run.model, self.plain, targets, run.experiment.eval, run.device, self.negatives(part), rounding
            )

    def same_device(self) -> bool:
        """True if the run was made on such a device as this audit, in one process."""
        about = self.finished.about["machine"]
        return about.get("device") == about_machine(self.run.device)["device"] and "processes" not in about

    def same_sums(self) -> bool:
        """True if sums have the last bits that they had in the run: the same device, and as many threads."""
        about = self.finished.about["machine"]
        return self.same_device() and about.get("threads") == torch.get_num_threads()

    @cached_property
    def earlier(self) -> Run | None:
        """The run whose weights this one began with, if that is still there."""
        return begun.earlier_run(self.experiment, self.run.folder)

    @cached_property
    def first_epochs(self) -> int:
        """The largest number of epochs when the first one was trained; 0 where that is not known."""
        return first_epochs(self.run.folder, self.experiment.train)

    @cached_property
    def traces(self) -> tuple[Trace, Trace]:
        """The traces of training on the log, and on its twin."""
        run, experiment = self.run, self.experiment
        twin = experiment.data.split_windows(twin_of(run.sequences, self.plain))
        train = replace(experiment.train, epochs=self.first_epochs or experiment.train.epochs)
        if not self.same_device():  # its losses are not compared, so nothing needs a compiler here
            train = replace(train, compile=False)
        experiment = replace(experiment, train=train)
        real, other = (
            trace_of(
                experiment,
                split,
                run.device,
                folder=run.folder,
                batches=self.batches,
                taught=(run.sequences, run.split),
                earlier=self.earlier,
            )
            for split in (run.split, twin)
        )
        return real, other

    def check_twin(self, stage: str) -> str:
        """Compare one stage of training on the log and on its twin."""
        number = compare_traces(*self.traces, stage)
        return f"all tensors ({number}) have the same bits where every held-out interaction is another one"

    def check_made(self) -> str:
        """Compare what there is before training, on the log and on its twin."""
        return self.check_twin("made") + begun.check_start(self.run, self.earlier, self.traces[0].other)

    def check_clusters(self) -> str:
        """Compare the clusters before an epoch on the log and on its twin."""
        if not any(isinstance(module, Prototypes) for module in self.run.model.modules()):
            raise Unused("nothing is clustered")
        self.check_twin("training begins")
        return self.check_twin("training goes on")

    def check_epoch(self, name: str) -> str:
        """Compare an epoch on the log and on its twin, and its losses with those of the history."""
        if name not in self.traces[0].batches:
            raise Unused("the model is counted, not trained" if name == "training" else "there is no such stage")
        for stage in ("begins", "batches", "ends", "goes on"):
            told = self.check_twin(f"{name} {stage}")
        steps = self.traces[0].batches[name]
        return f"after {steps} batches {told}; {self.against_history(name, steps)}"

    def against_history(self, name: str, steps: int) -> str:
        """Compare the losses of the epoch, on the twin, with the first row of the history; in words."""
        folder = self.run.folder / "pretrain" if name == "pretraining" else self.run.folder
        stored, found = stored_losses(folder / "history.csv"), self.traces[1].losses[name]
        if name == "training" and "pretraining" in self.traces[0].batches:
            return "the history begins after the whole pre-training, so its losses are not compared"
        if stored is None or stored[0] != steps:
            return "the history's first epoch has other batches, so its losses are not compared"
        if not self.same_device():
            return "the run was made on another device or by several processes, so the losses of its history are not compared"
        apart = max(abs(found.get(term, 0.0) - value) / max(abs(value), 1e-12) for term, value in stored[1].items())
        if apart == 0:
            return "the losses are, to the last bit, those of the first epoch in history.csv"
        if not self.first_epochs:
            return "train.epochs may have been another number in the first epoch, so its losses are not compared"
        about, compiled = self.finished.about, self.experiment.train.compile
        same = about["machine"] == about_machine(self.run.device) and about["versions"] == library_versions()
        exact = same and not compiled and not str(about["versions"].get("commit", "")).endswith("-dirty")
        if apart > NEAR or exact:
            raise Broken(
                f"the losses of the first epoch in history.csv are others, by up to {apart:.2g} of their value"
            )
        why = ": both were compiled, each for itself" if compiled else ""
        return f"the losses are those of the first epoch in history.csv, to {apart:.1g} of their value{why}"
