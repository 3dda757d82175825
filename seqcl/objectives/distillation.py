"""Distillation: the next item, and all items as teachers see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqcl.data.batches import Loader
from seqcl.encoders import Encoder, Scoring
from seqcl.errors import UserError, not_negative, positive
from seqcl.losses import distillation, kept_distillation
from seqcl.objectives.base import Objective
from seqcl.objectives.direct import DirectAU
from seqcl.objectives.kept_chances import AT_ONCE, KeptChances, Saying
from seqcl.objectives.next_item import NextItem
from seqcl.objectives.positions import learned_places, learned_positions, only_newest
from seqcl.objectives.teachers import Teacher, joint_chances
from seqcl.parts import options_of
from seqcl.types import Batches, SeqBatch, Windows


def check_alpha(alpha: float) -> None:
    """Refuse a part of the distillation that is not above 0 and at most 1.

    Raises:
        UserError: names it.
    """
    if not 0 < alpha <= 1:
        raise UserError(f"Distillation: alpha must be above 0 and at most 1, not {alpha}")


def check_untaught(options: Mapping[str, Any]) -> None:
    """Refuse options of a distillation that has no teachers.

    Raises:
        UserError: names the option.
    """
    if "alpha" in options:
        check_alpha(options["alpha"])
    known = options_of(Distillation)
    for name, value in options.items():
        if name != "teachers" and value != known[name].default:
            raise UserError(f"distil.{name}={value} needs teachers: give --distil.teachers")


class Distillation(Objective):
    """The student's softmax over all items matches the mean of its teachers', at every position with a target: the term `distil`.

    Source: SimCLR v2, arXiv 2006.10029, eq. 2 and 3. Teachers see the training windows alone, and take no gradient. An encoder
    that cannot learn all positions in one pass learns the newest one of each row: give it --data.windows prefix.

    Differs from the paper: the divergence in place of the cross-entropy, which is larger by a constant, and no factor of the
    temperature squared, as the authors' notebook has. Several teachers are
    averaged. A model that is counted teaches by its scores as shares of their sum; it was counted on the very rows that
    it teaches, unless `groups` keeps each row out of its own count, and 1e-5 is added to the share of each item, so that of
    many items it knows less.

    Args:
        ranker: The objective that ranks, and gives the student's own term.
        teachers: Folders of finished runs, or names of models that are counted, separated by commas.
        alpha: Part of the distillation in the loss; 1: the next item is not learned (eq. 2).
        temperature: Divisor of the scores of teachers and student.
        kept: Largest chances of a position, taken once, when training begins or goes on, and learned in the place of all; 0: all,
            anew in each step. A step then costs what a full softmax costs; a position takes 6 bytes for each of them.
        counted: 0: chances of all teachers are averaged. Else the weight of the log shares of each model that is counted,
            which are added to the mean scores of the networks.
        groups: Groups of users: a model that is counted teaches each as counted without it; 0: as counted on all. Needs kept.

    Raises:
        UserError: a value out of its range, no teacher, or DirectAU by cosines as the student.
    """

    def __init__(
        self,
        *,
        ranker: Objective,
        teachers: str = "",
        alpha: float = 0.5,
        temperature: float = 1.0,
        kept: int = 0,
        counted: float = 0.0,
        groups: int = 0,
    ) -> None:
        super().__init__()
        positive("Distillation", temperature=temperature)
        not_negative("Distillation", kept=kept, counted=counted, groups=groups)
        check_alpha(alpha)
        if groups == 1:
            raise UserError("Distillation: groups must be 2 or more, or 0 for one count of all users, not 1")
        if groups and not kept:
            raise UserError(
                "Distillation: groups needs kept, such as 200: a count for each group is too much for every step"
            )
        self.names = [name.strip() for name in teachers.split(",") if name.strip()]
        if not self.names:
            raise UserError("Distillation: teachers is empty: give the folders of finished runs, separated by commas")
        if isinstance(ranker, DirectAU) and ranker.scoring.similarity == "cosine":
            raise UserError(
                "Distillation: cosines of DirectAU, from -1 to 1, cannot follow a teacher: take similarity dot"
            )
        self.ranker, self.alpha, self.temperature = ranker, alpha, temperature
        self.kept, self.weight, self.groups = kept, counted, groups
        self.times_needed = ranker.times_needed
        self.find: Callable[[str], Teacher] | None = None
        """Makes a teacher of its name; whoever builds the model sets it."""
        self.teachers: list[Teacher] | None = None
        """The teachers; made when they are first asked unless they are given before."""
        self.known: KeptChances | None = None

    @property
    def scoring(self) -> Scoring:  # type: ignore[override]
        """The scoring of the ranker."""
        return self.ranker.scoring

    def extra_repr(self) -> str:
        own = f"teachers={self.names}, alpha={self.alpha}, temperature={self.temperature}"
        return f"{own}, kept={self.kept}, counted={self.weight}, groups={self.groups}"

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        self.ranker.prepare(encoder, train)
        self.newest = not encoder.one_pass or only_newest(train)
        self.train_windows = train

    def before_epoch(self, encoder: Encoder, batches: Batches, *, epoch: int, epochs: int) -> None:
        self.ranker.before_epoch(encoder, batches, epoch=epoch, epochs=epochs)

    def chances_of(self, device: torch.device) -> KeptChances:
        """The kept chances, made when they are first asked, so that a run that goes on has them too."""
        if self.known is None:
            train = self.train_windows
            rows = Loader(train, batch_size=AT_ONCE, device=device, times=train.times is not None)
            groups, saying = max(self.groups, 1), partial(self.said_to, device=device)
            self.known = KeptChances(rows, saying, size=self.kept, newest=self.newest, groups=groups)
        return self.known

    def said_to(self, group: int, device: torch.device) -> Saying:
        """Make the function that gives the teachers' chances to a group of users."""
        teachers = self.given(device)
        if self.groups:
            train = self.train_windows
            users = np.arange(train.num_users) % self.groups == group
            teachers = [teacher.without(train, users) for teacher in teachers]
        return partial(joint_chances, teachers, temperature=self.temperature, counted=self.weight)

    def after_step(self, encoder: Encoder) -> None:
        self.ranker.after_step(encoder)

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        learned = learned_positions(encoder, batch._replace(positions=None), newest=self.newest)
        table = encoder.item_embeddings()
        terms: dict[str, Tensor] = {}
        self.observed, self.missing = {}, {}
        if self.alpha < 1:
            if isinstance(self.ranker, NextItem):
                terms = self.ranker.terms_of(learned, table)  # the states serve both terms
            else:
                terms = self.ranker(encoder, batch)
            terms = {name: (1 - self.alpha) * term for name, term in terms.items()}
            self.observed, self.missing = dict(self.ranker.observed), dict(self.ranker.missing)
        rows, places = learned_places(encoder, batch, newest=self.newest)
        queries, candidates = self.scoring.queries(learned.states), self.scoring.candidates(table)
        if not self.kept:
            teachers = self.given(rows.items.device)
            wanted = joint_chances(teachers, rows, places, temperature=self.temperature, counted=self.weight)
            loss = distillation(queries, candidates, wanted, temperature=self.temperature)
        else:
            known = self.chances_of(rows.items.device)
            loss = kept_distillation(queries, candidates, *known.at(rows, places), temperature=self.temperature)
            self.observed["kept"] = torch.as_tensor(known.held, device=loss.device)
        loss = learned.mean(loss)
        self.missing["distil"] = torch.as_tensor(not learned.total, device=loss.device)
        return terms | {"distil": self.alpha * loss}

    def given(self, device: torch.device) -> list[Teacher]:
        """The teachers, on a device."""
        if self.teachers is None:
            self.take([self.make(name) for name in self.names], device)
        assert self.teachers is not None
        return self.teachers

    def take(self, teachers: list[Teacher], device: torch.device) -> None:
        """Take the teachers, in the order of their names."""
        self.check_counted(any(teacher.counted for teacher in teachers))
        self.teachers = [teacher.to(device) for teacher in teachers]

    def check_counted(self, given: bool) -> None:
        """Refuse options for counted models where none is given.

        Raises:
            UserError: names the option.
        """
        for name, value in (("counted", self.weight), ("groups", self.groups)):
            if value and not given:
                raise UserError(
                    f"Distillation: {name} is for teachers that are counted, such as SLIST, and there is none"
                )

    def make(self, name: str) -> Teacher:
        """Make a teacher that is no run.

        Raises:
            UserError: nobody has said how, or a name stands for none.
        """
        if self.find is None:
            raise UserError(f"Distillation: its teachers were not given to it: {', '.join(self.names)}")
        return self.find(name)
