"""What a recipe is: an encoder, a next-item or masked-item term that also ranks, and any further terms."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from seqcl.augment import Pair, View
from seqcl.objectives import Joint, NextItem, Objective, ViewsObjective
from seqcl.types import Encoder, SeqBatch, Windows


class Pretraining(nn.Module):
    """A stage before training: another objective for the same encoder, trained for all of its epochs and not validated.

    It is made when it is asked for and is no part of the model, whose weights are of use without it.
    """

    def __init__(self, *, encoder: Encoder, objective: Objective, epochs: int, lr: float) -> None:
        super().__init__()
        self.encoder, self.objective = encoder, objective
        self.epochs, self.lr, self.identity = epochs, lr, objective.identity

    def forward(self, batch: SeqBatch) -> dict[str, Tensor]:
        """Weighted loss terms by name."""
        return self.objective(self.encoder, batch)


class Recommender(nn.Module):
    """A trainable model: called on a batch it gives its weighted loss terms, and it ranks by inner product.

    Every recipe is a subclass whose constructor takes the training windows, which is all that a recipe may learn from,
    and its parts as `functools.partial`s; the keywords of a part are its options on the command line.
    """

    def __init__(self, train: Windows, *, encoder: Encoder, next_item: Objective, **terms: Objective) -> None:
        super().__init__()
        self.identity: dict[str, str] = {}  # what else than the log its weights belong to
        self.encoder = encoder
        self.objective = Joint(next_item=next_item, **terms)
        self.objective.prepare(encoder, train)

    def pretraining(self) -> Pretraining | None:
        """What the encoder is to learn before the model is trained; None: nothing."""
        return None

    def forward(self, batch: SeqBatch) -> dict[str, Tensor]:
        """Weighted loss terms by name; their sum is what training minimises."""
        return self.objective(self.encoder, batch)

    def queries(self, batch: SeqBatch) -> Tensor:
        """What is compared with the candidates: (B, D)."""
        return self.objective.queries(self.encoder.last(batch))

    def vectors(self) -> Tensor:
        """Vectors of items 1..N: (N, D)."""
        return self.objective.candidates(self.encoder.item_embeddings())

    def scores(self, batch: SeqBatch) -> Tensor:
        """Scores of items 1..N: (B, N)."""
        return self.queries(batch) @ self.vectors().T


class Contrastive(Recommender):
    """A recommender with one contrastive term over two views of each row; its parts come as a recipe has them, not yet made."""

    def __init__(
        self,
        train: Windows,
        *,
        encoder: Callable[..., Encoder],
        next_item: Callable[[], NextItem],
        views: Callable[[], Pair | View],
        objective: Callable[..., ViewsObjective],
    ) -> None:
        built = encoder(num_items=train.num_items, max_len=train.max_len)
        super().__init__(train, encoder=built, next_item=next_item(), contrast=objective(views=views(), dim=built.dim))


class Baseline(nn.Module):
    """A model that is counted rather than trained; its buffers are its state."""

    def queries(self, batch: SeqBatch) -> Tensor:
        """A model without vectors has no queries."""
        raise TypeError(f"{type(self).__name__} scores without vectors: call scores()")

    def vectors(self) -> None:
        """None: it scores without vectors."""
        return None

    def scores(self, batch: SeqBatch) -> Tensor:
        """Scores of items 1..N: (B, N)."""
        raise NotImplementedError
