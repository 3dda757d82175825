"""A mixture of contrastive experts, each with a space of its own, and a gate that tells whose row it is: MiCE."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqcl.augment import Pair, View, halves
from seqcl.encoders import Encoder
from seqcl.errors import UserError, positive
from seqcl.losses import mixture, similarities, wide
from seqcl.objectives.base import check_prepared
from seqcl.objectives.follower import Follower, check_momentum
from seqcl.objectives.heads import Head, projection
from seqcl.objectives.kinship import related, related_share
from seqcl.objectives.views import ViewsObjective
from seqcl.types import Batches, SeqBatch, Windows


class MiCE(ViewsObjective):
    """Each first view must find the key of its second view in the spaces of experts that a gate weighs: the term `contrast`.

    Expert z compares f_z(first) + its prototype with the keys v_z(second) of a slow copy; the gate is a softmax over fixed
    directions that stand as far apart as they can. The loss is -log of the mixture. The prototypes learn by gradient, and
    every epoch begins with the mean key of the rows that each expert had in the epoch before (eq. 13).
    Source: MiCE, arXiv 2105.01899, section 4.

    Differs from the paper: keys of the batch instead of a queue. The gate reads the first view, where the authors' code
    encodes a third. The loss is that of the exact posterior, in which the paper's bound is no bound but equal, with the
    same gradient. Rows of one user or with one last target are no negatives of each other.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        temperature: Divisor of the inner products; 1 in the paper.
        gate_temperature: Divisor of the gate's cosines; 1 in the paper. A low one leaves a row to one expert early.
        experts: Number of experts, at most D + 1; the number of classes in the paper.
        momentum: Fraction of the key encoder that stays in each step; 0.999 in the paper.
        head: Map from a state to the spaces of all experts; linear in the paper.
    """

    directions: Tensor  # (K, D), of the gate, unit length
    sums: Tensor  # (K, D), of the keys that each expert had in this epoch

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        temperature: float = 0.2,
        gate_temperature: float = 1.0,
        experts: int = 8,
        momentum: float = 0.999,
        head: Head = "linear",
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head="none")
        positive("MiCE", temperature=temperature, gate_temperature=gate_temperature, experts=experts)
        if experts > dim + 1:
            raise UserError(f"MiCE: experts must be at most dim + 1 = {dim + 1}, not {experts}")
        if head == "none" and experts > 1:
            raise UserError(f"MiCE: {experts} experts need a head: linear, mlp, mlp_bn or mlp3")
        check_momentum("MiCE", momentum)
        self.temperature, self.gate_temperature, self.momentum = temperature, gate_temperature, momentum
        self.spaces = projection(head, dim, experts * dim)
        self.gate = projection("linear", dim)
        self.prototypes = nn.Parameter(F.normalize(torch.randn(experts, dim), dim=1))
        self.register_buffer("directions", far_apart(experts, dim))
        self.register_buffer("sums", torch.zeros(experts, dim))

    def prepare(self, encoder: Encoder, train: Windows) -> None:
        super().prepare(encoder, train)
        self.follower = Follower(encoder, self.spaces)

    @torch.no_grad()
    def before_epoch(self, encoder: Encoder, batches: Batches, *, epoch: int, epochs: int) -> None:
        super().before_epoch(encoder, batches, epoch=epoch, epochs=epochs)
        some = self.sums.abs().sum(1, keepdim=True) > 0  # (K, 1)
        self.prototypes.copy_(torch.where(some, F.normalize(self.sums, dim=1), self.prototypes))
        self.sums.zero_()

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        check_prepared(self, hasattr(self, "follower"))
        both = self.make_views(batch)
        first, second = halves(both)
        states = encoder.last(first)  # (B, D)
        shape = self.prototypes.shape
        queries = F.normalize(wide(self.spaces(states)).unflatten(1, shape), dim=2)  # (B, K, D)
        keys = F.normalize(wide(self.follower(second)).unflatten(1, shape), dim=2)  # (B, K, D)
        moved = queries + F.normalize(wide(self.prototypes), dim=1)  # (B, K, D)
        gate = similarities(self.gate(states), self.directions, "cosine") / self.gate_temperature  # (B, K)
        same = related(batch, both)
        loss, posterior = mixture(moved, keys, gate, temperature=self.temperature, same=same)
        expert = posterior.argmax(1)  # (B,)
        self.sums.index_add_(0, expert, keys[torch.arange(len(expert), device=expert.device), expert])
        used = expert.unique().numel() / shape[0]
        self.observe(
            queries.detach().flatten(1),
            keys.flatten(1),
            masked_share=related_share(same),
            experts_used=loss.new_tensor(used).detach(),
        )
        self.lack(contrast=same.all())
        return {"contrast": self.weight * loss.masked_fill(same.all(), 0.0)}

    def after_step(self, encoder: Encoder) -> None:
        self.follower.follow(encoder, self.momentum)


def far_apart(number: int, dim: int) -> Tensor:
    """Unit vectors whose largest cosine is the least there can be, -1 / (number - 1), up to dim + 1 of them: (number, dim)."""
    if number == 1:
        return F.one_hot(torch.zeros(1, dtype=torch.int64), dim).float()
    corners = torch.eye(number, dtype=torch.float64) - 1 / number  # of a simplex, in number - 1 dimensions
    left, sizes, _ = torch.linalg.svd(corners)
    flat = (left * sizes)[:, : number - 1]  # (number, number - 1)
    return F.normalize(F.pad(flat, (0, dim - number + 1)), dim=1).float()
