"""A space for every operator, which alone is not invariant to it: leave-one-out contrast, LooC."""

from __future__ import annotations

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from seqcl.augment import Growing, Pair, View, stack
from seqcl.encoders import Encoder
from seqcl.errors import UserError, positive
from seqcl.losses import contrast, similarities, wide
from seqcl.objectives.base import rng
from seqcl.objectives.heads import Head, projection
from seqcl.objectives.kinship import related, related_share
from seqcl.objectives.views import ViewsObjective
from seqcl.types import SeqBatch


class LooC(ViewsObjective):
    """Contrast in one space that no operator changes, and in one for each operator that it alone changes: the term `contrast`.

    Every view goes through all n operators. A row has a query, a key that shares nothing with it, and for each operator a
    key for which this operator drew the same. In the common space the query must find the first key among those of other
    rows. In the space of operator i it must find key i among the row's other keys, which differ in operator i too, and
    the keys i of other rows. Source: LooC, arXiv 2008.05659, section 3.

    Differs from the paper: keys of the batch by the same encoder, instead of a queue by a slow copy. A key of the row is no
    negative where it looks like the right one or like the query, or where operator i changed neither it nor the query, as
    in short rows; nor are rows of one user or with one last target.

    The same draws are those of the same seed. A view whose width depends on its draw (NodeDrop, Subgraph, SameTarget) changes
    the draws of the operators behind it, so that key i may differ from the query in such an operator i: name it last.

    Args:
        views: Source of the operators, applied one after another to every view.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        temperature: Divisor of the cosines.
        head: Projection of each space, dropped after training.

    Raises:
        UserError: a pair that is ordered or distinct, as all operators are applied to each view, or whose rates grow.
    """

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        temperature: float = 0.2,
        head: Head = "mlp",
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head="none")
        positive("LooC", temperature=temperature)
        pair = self.views
        for option, given in (("ordered", pair.ordered), ("distinct", pair.distinct)):
            if given:
                raise UserError(
                    f"LooC applies all operators to every view: {option} says nothing, leave views.{option} out"
                )
        if isinstance(pair, Growing):
            raise UserError("LooC: its views cannot grow over the epochs; take --views crop_mask_reorder")
        self.temperature = temperature
        self.heads = nn.ModuleList(projection(head, dim) for _ in range(len(self.views.views) + 1))

    def make_views(self, batch: SeqBatch) -> SeqBatch:
        """Make query, plain key and one key for each of the n operators: (n + 2) * B rows, the queries first."""
        return self.made(batch)[0]

    def made(self, batch: SeqBatch) -> tuple[SeqBatch, Tensor]:
        """Make the same rows, and tell which operators changed each of them: (n + 2, n, B) bool."""
        operators, device = self.views.views, batch.items.device
        seeds = torch.randint(2**62, (len(operators) + 2, len(operators)), generator=rng(device), device=device)
        seeds[2:].fill_diagonal_(0)
        seeds[2:] += torch.diag(seeds[0])  # key i has the draws of the query in operator i
        targets = batch.last_targets()

        def view(draws: list[int]) -> tuple[SeqBatch, Tensor]:
            made, changed = batch, []
            for operator, seed in zip(operators, draws, strict=True):
                before = made
                made = operator(before._replace(targets=targets), Generator(device).manual_seed(seed))
                both = stack(before, made).items.chunk(2)  # as wide as the wider one
                changed.append((both[0] != both[1]).any(1))
            return made._replace(targets=None), torch.stack(changed)

        views, changed = zip(*map(view, seeds.tolist()), strict=True)
        return reduce(stack, views), torch.stack(changed)

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        (views, changed), rows = self.made(batch), len(batch.lengths)
        states = encoder.last(views).split(rows)  # n + 2 of (B, D), of queries, plain keys, keys of operators
        shown, *looks = views.items.split(rows)  # n + 2 of (B, L), of the queries and of the keys
        same = related(batch, views)  # (B, B)
        losses, lonely = [], same.all()
        for space, head in enumerate(self.heads):
            query, *keys = (F.normalize(wide(head(one)), dim=1) for one in states)  # (B, D) each
            others = [other for other in range(len(keys)) if space and other != space]
            own = [(query * keys[other]).sum(1) for other in others]  # (B,) each
            differs = [  # (B,) each; operator i is number space - 1
                (looks[other] != looks[space]).any(1)
                & (looks[other] != shown).any(1)
                & (changed[0, space - 1] | changed[1 + other, space - 1])
                for other in others
            ]
            logits = torch.cat((similarities(query, keys[space], "dot"), *(one[:, None] for one in own)), 1)
            keep = torch.cat((~same, *(one[:, None] for one in differs)), 1)
            positives = torch.eye(*keep.shape, dtype=torch.bool, device=keep.device)
            losses.append(contrast(logits / self.temperature, positives, keep=keep))
            lonely = lonely & ~keep.any()
            if not space:
                self.observe(query.detach(), keys[0].detach(), masked_share=related_share(same))
        self.lack(contrast=lonely)
        return {"contrast": self.weight * torch.stack(losses).mean()}
