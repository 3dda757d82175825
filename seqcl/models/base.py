"""Base classes of models: parts that a class declares, and one face by which a model is ranked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from seqcl import encoders
from seqcl.augment import crop_mask_reorder
from seqcl.errors import UserError
from seqcl.models.pretraining import ContrastFirst, Pretraining, check_contrast, keep_layers
from seqcl.objectives import Distillation, Joint, NextItem, Objective
from seqcl.objectives.distillation import check_untaught
from seqcl.parts import Part, chosen, declared, part
from seqcl.types import SeqBatch, Windows

Parts = dict[str, Part]
"""The parts of a recipe by name, before they are made."""


class Model(nn.Module):
    """A model that ranks items: by inner products if it has vectors, else by the scores of all items."""

    def scores(self, batch: SeqBatch) -> Tensor:
        """Scores of items 1..N: (B, N)."""
        raise NotImplementedError

    def vectors(self) -> Tensor | None:
        """Vectors of items 1..N, (N, D); None where scores are no inner products."""
        return None

    def queries(self, batch: SeqBatch) -> Tensor:
        """Vectors to compare with those of the items: (B, D)."""
        raise TypeError(f"{type(self).__name__} scores without vectors: call scores()")


class Recommender(Model):
    """A trainable model, declared by its parts: called on a batch, it gives its weighted loss terms.

    A recipe is a subclass whose class attributes name its parts: `encoder = part(GRU, dim=32)`. Parts are inherited, and
    the options of their components are the options of the recipe. A recipe of another form overrides `make_encoder` or `terms`.

    Args:
        train: the training windows, the only thing that a recipe may learn from.
        parts: parts in the place of the declared ones, by name.

    Raises:
        UserError: the recipe has no such part, or a part's option is out of its range.
    """

    encoder = part(encoders.SASRec)
    next_item = part(NextItem, similarity="cosine", temperature=0.1)
    distil = part(Distillation)

    more_items: ClassVar[int] = 0
    """Items by which the encoder's longest row exceeds a training window."""

    after_training: ClassVar[Sequence[str]] = ()
    """Sections that are read once the model is trained, so that a run may go on with others."""

    contrast_off: ClassVar[Sequence[str] | None] = None
    """Options that are 0 where the contrast is out; none where the plain recipe of the encoder is left then; None: no contrast."""

    def __init__(self, train: Windows, **parts: Part) -> None:
        super().__init__()
        own = chosen(type(self), parts)
        self.identity: dict[str, str] = {}  # extra facts that a checkpoint must match, besides the log
        self.encoder = self.make_encoder(train, own)
        terms = self.terms(self.encoder, own)
        ranking = next(iter(terms), "")
        if terms and not hasattr(terms[ranking], "scoring"):
            raise cannot_rank(type(self), own, terms[ranking])
        if "distil" in own and own["distil"].options.get("teachers"):
            terms[ranking] = own["distil"](ranker=terms[ranking])
        elif "distil" in own:
            check_untaught(own["distil"].options)
        if isinstance(learner := terms.get(ranking), Distillation):
            from seqcl.models.teachers import counted_teacher

            learner.find = partial(counted_teacher, train=train)
        stage = own["pretrain"]() if "pretrain" in own else None
        self.contrast_first = stage if isinstance(stage, ContrastFirst) and stage.epochs else None
        if self.contrast_first is not None:
            check_contrast(terms)
            if self.contrast_first.keep:
                self.encoder = keep_layers(self.encoder, terms, self.contrast_first.keep)
        self.objective = Joint(**terms)
        self.objective.prepare(self.encoder, train)
        # A plain dictionary: what is dropped after pre-training leaves no weights in the model.
        self.contrastive = {name: term for name, term in terms.items() if name != ranking}
        if self.contrast_first is not None and not self.contrast_first.contrast:
            self.objective = Joint(**{ranking: terms[ranking]})

    def make_encoder(self, train: Windows, parts: Parts) -> encoders.Encoder:
        """Make the encoder, for the items and the rows of the training windows."""
        return parts["encoder"](num_items=train.num_items, max_len=train.max_len + self.more_items)

    def terms(self, encoder: encoders.Encoder, parts: Parts) -> dict[str, Objective]:
        """Make the objectives, by the names of their terms; the first one ranks."""
        return {"next_item": parts["next_item"]()}

    def pretraining(self) -> Pretraining | None:
        """The stage before training: the contrastive terms alone; None where there is none."""
        if self.contrast_first is None:
            return None
        return Pretraining(encoder=self.encoder, objective=Joint(**self.contrastive), stage=self.contrast_first)

    def forward(self, batch: SeqBatch) -> dict[str, Tensor]:
        """Weighted loss terms by name; training minimises their sum."""
        return self.objective(encoders.dealt(self.encoder), batch)

    def queries(self, batch: SeqBatch) -> Tensor:
        """Vectors to compare with those of the items: (B, D)."""
        return self.objective.scoring.queries(self.encoder.last(batch))

    def vectors(self) -> Tensor:
        """Vectors of items 1..N: (N, D)."""
        return self.objective.scoring.candidates(self.encoder.item_embeddings())

    def vector_pieces(self) -> Iterator[Tensor]:
        """The same vectors, some 65,536 at a time: (n, D) each. An encoder that can make some alone never makes all."""
        scoring, last = self.objective.scoring, self.encoder.num_items
        device = next(self.encoder.parameters()).device
        for ids in torch.arange(last + 2, device=device).split(65536):
            rows = self.encoder.item_vectors(ids)
            items = (ids > 0) & (ids <= last)
            yield scoring.vectors(rows[items], None if scoring.bias is None else scoring.bias[ids[items] - 1])

    def scores(self, batch: SeqBatch) -> Tensor:
        """Scores of items 1..N: (B, N)."""
        return self.queries(batch) @ self.vectors().T


def cannot_rank(recipe: type[Recommender], parts: Parts, objective: Objective) -> UserError:
    """The error for an objective that stands where items are ranked and has no scoring; it names the recipe's own one."""
    kind = type(objective)
    own = [one.component.__name__ for name, one in declared(recipe).items() if parts[name].component is kind]
    text = f"objective {kind.__name__} does not fit {recipe.__name__}: it ranks no items, and the first objective must"
    return UserError(f"{text}; take {own[0]}" if own else text)


class Contrastive(Recommender):
    """A recommender with one contrastive term over two views of each row; a subclass names its `objective`."""

    pretrain = part(ContrastFirst)
    views = part(crop_mask_reorder)
    objective: Any

    contrast_off: ClassVar[Sequence[str] | None] = ()

    def terms(self, encoder: encoders.Encoder, parts: Parts) -> dict[str, Objective]:
        next_item = super().terms(encoder, parts)
        if "objective" not in parts:
            raise UserError(
                f"{type(self).__name__} declares no objective: write objective = part(TwoViews), or another one"
            )
        return {**next_item, "contrast": parts["objective"](views=parts["views"](), dim=encoder.dim)}


class Baseline(Model):
    """A model that is counted and not trained; its buffers are its state.

    Args:
        train: the training windows.
        parts: parts in the place of the declared ones, by name.
    """

    def __init__(self, train: Windows, **parts: Part) -> None:
        super().__init__()
        self.parts = chosen(type(self), parts)
