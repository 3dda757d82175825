"""A run or a bundle as the server asks it: many histories in one call, items near an item, and why an item is recommended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqcl.data import Sequences
from seqcl.errors import UserError
from seqcl.experiment.histories import same_ids
from seqcl.retrieval.asked import Asked, Scored
from seqcl.serve.catalogue import Catalogue
from seqcl.types import SeqBatch

REASONS = 3
"""Items of the history that explain a recommendation."""

NOTHING = np.zeros(0, np.int64)
Answer = tuple[np.ndarray, np.ndarray]
"""Scores and items 1..N, best first."""


class Missing(UserError):
    """An item, a user or a model that is not there."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Question:
    """One history to recommend for.

    Args:
        history: (n,) its items 1..N, oldest first, at least one.
        barred: (m,) items that are not recommended, sorted.
        k: length of the list.
        user: the user's row in the log of the run; -1 for anyone else.
        allowed: (c,) the only items to recommend, sorted; None: all.
    """

    history: np.ndarray
    barred: np.ndarray
    k: int
    user: int = -1
    allowed: np.ndarray | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Served:
    """A model that is asked over HTTP.

    Args:
        place: the folder, as it was named.
        asked: its model.
        vectors: of the items, (N, D), or (N, D + 1) with a bias; of a blend those of its network; None for a model that has none.
        biased: the last coordinate of a vector is a bias.
        lengths: (N,) of the vectors without it.
        catalogue: what is known of its items.
        sequences: the log of a run; None for a bundle.
        about: facts for people: model, data, protocol, figures, slices, history.
    """

    place: Path
    asked: Asked
    vectors: Tensor | None
    biased: bool
    lengths: Tensor | None
    catalogue: Catalogue
    sequences: Sequences | None
    about: dict[str, Any]

    @property
    def num_items(self) -> int:
        return len(self.asked.item_ids)

    @property
    def scored(self) -> bool:
        """Rows of the model are scores of all items (B, N), and no queries (B, D)."""
        return isinstance(self.asked.searcher, Scored)

    def numbers(self, raws: Sequence[int | str]) -> tuple[np.ndarray, list[int | str]]:
        """The items 1..N of raw ids, and the ids that the model does not know."""
        ours = self.asked.item_ids
        width = 20 if ours.dtype.kind == "i" else ours.dtype.itemsize // 4
        # numpy drops a NUL at the end of a text
        fits = [isinstance(raw, int) or (len(raw) <= width and "\0" not in raw) for raw in raws]
        plain: list[Any] = [raw if fit else "" for raw, fit in zip(raws, fits, strict=True)]
        if not all(isinstance(raw, int) for raw in plain):
            plain = [str(raw) for raw in plain]
        found = np.where(fits, same_ids(np.array(plain), ours) + 1, 0) if plain else NOTHING
        return found[found > 0], [raw for raw, item in zip(raws, found.tolist(), strict=True) if not item]

    def history(self, user: int | str) -> tuple[np.ndarray, int]:
        """The items of a user of the run, oldest first, and the user's row.

        Raises:
            Missing: the log has no such user, or there is none.
        """
        if self.sequences is None:
            raise Missing(f"{self.about['model']} was exported and knows no users: give items")
        try:
            row = self.sequences.find_user(user)
        except UserError as error:
            raise Missing(str(error)) from None
        return self.sequences.row(row).astype(np.int64), row

    @torch.no_grad()
    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """The lists of some questions, each as if it were asked alone."""
        found: list[Answer] = [(NOTHING, NOTHING)] * len(questions)
        known: defaultdict[bool, list[int]] = defaultdict(list)
        for place, question in enumerate(questions):
            known[question.user >= 0].append(place)
        for places in known.values():  # users whom the model knows are a batch of their own
            rows = self.asked.rows(self.batch([questions[place] for place in places]))  # (B, D) or (B, N)
            groups: defaultdict[tuple[int, bool, int], list[int]] = defaultdict(list)
            for row, place in enumerate(places):
                one = questions[place]  # how widely an index looks depends on the first two
                groups[one.k, len(one.barred) > 0, id(one.allowed)].append(row)
            for (k, barred, _), some in groups.items():
                bars = [questions[places[row]].barred for row in some]
                allowed = questions[places[some[0]]].allowed
                if allowed is None:
                    lists = self.search(rows[some], k, bars if barred else None)
                else:
                    lists = self.among(rows[some], k, bars, allowed)
                for row, answer in zip(some, lists, strict=True):
                    found[places[row]] = answer
        return found

    def batch(self, questions: Sequence[Question]) -> SeqBatch:
        """The batch of the newest items of some histories, all of users of the log or none."""
        newest = [question.history[-self.asked.max_len :] for question in questions]
        lengths = torch.tensor([len(one) for one in newest])
        items = torch.zeros((len(newest), int(lengths.max())), dtype=torch.long)  # (B, L)
        for row, one in enumerate(newest):
            items[row, : len(one)] = torch.from_numpy(one)
        device = self.asked.device
        users = torch.tensor([one.user for one in questions], device=device) if questions[0].user >= 0 else None
        return SeqBatch(items.to(device), lengths.to(device), users=users)

    def search(self, rows: Tensor, k: int, barred: Sequence[np.ndarray] | None) -> list[Answer]:
        """The k best items of some rows, all with items to leave out or none."""
        exclude = None
        if barred is not None:
            owner = np.repeat(np.arange(len(barred)), [len(one) for one in barred])
            exclude = (
                torch.from_numpy(owner).to(rows.device),
                torch.from_numpy(np.concatenate(barred)).to(rows.device),
            )
        best = self.asked.searcher.search(rows, min(k, self.num_items), exclude)
        scores, items = (part.cpu().numpy() for part in best)  # (B, k) each
        return [(score[item > 0], item[item > 0]) for score, item in zip(scores, items, strict=True)]

    def among(self, rows: Tensor, k: int, barred: Sequence[np.ndarray], allowed: np.ndarray) -> list[Answer]:
        """The k best of the allowed items (c,), sorted, for some rows: queries (B, D), or scores of all items (B, N)."""
        items = torch.from_numpy(allowed).to(rows.device)
        vectors = None if self.scored or self.vectors is None else self.vectors[items - 1]  # (c, D)
        found: list[Answer] = []
        for row, out in zip(rows, barred, strict=True):
            scores = row[items - 1].float() if vectors is None else vectors @ row.float()
            scores[torch.from_numpy(np.isin(allowed, out))] = -torch.inf
            best = scores.topk(min(k, len(items)))
            left = ~best.values.isneginf()
            found.append((best.values[left].cpu().numpy(), items[best.indices[left]].cpu().numpy()))
        return found

    @property
    def plain(self) -> Tensor | None:
        """(N, D) the vectors without a bias."""
        return self.vectors[:, :-1] if self.vectors is not None and self.biased else self.vectors

    def near(self, item: int, k: int) -> Answer:
        """The k items with the largest cosine to one, and the cosines.

        Raises:
            UserError: the model has no vectors.
        """
        plain = self.plain
        if plain is None or self.lengths is None:
            raise UserError(f"{self.about['model']} has no vectors of items, so none is near another")
        cosines = plain @ (plain[item - 1] / self.lengths[item - 1]) / self.lengths  # (N,)
        cosines[item - 1] = -torch.inf
        best = cosines.topk(min(k, self.num_items - 1))
        return best.values.cpu().numpy(), best.indices.cpu().numpy() + 1

    def reasons(self, question: Question, items: np.ndarray) -> list[list[tuple[int, float]]]:
        """For each recommended item the nearest items of the history with their cosines, nearest first; empty without vectors."""
        plain = self.plain
        if plain is None or self.lengths is None or not len(items):
            return [[] for _ in items]
        past = np.unique(question.history[-self.asked.max_len :])
        ours, theirs = (plain[places] / self.lengths[places, None] for places in (items - 1, past - 1))
        best = (ours @ theirs.T).topk(min(REASONS, len(past)))  # (k, n)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [[(int(past[where]), value) for where, value in zip(*pair, strict=True)] for pair in pairs]
