"""Views whose input vectors are mixed with another row's (i-Mix), or moved along the gradient of the loss (CLAE)."""

from __future__ import annotations

import torch
from torch import Tensor

from seqcl import processes
from seqcl.augment import Pair, View, halves
from seqcl.encoders import Encoder, reading, vectors_read
from seqcl.errors import not_negative, positive
from seqcl.losses import contrast, nt_xent, similarities
from seqcl.objectives.heads import Head
from seqcl.objectives.kinship import masked_share, related, related_share
from seqcl.objectives.views import ViewsObjective
from seqcl.types import SeqBatch


class IMix(ViewsObjective):
    """Mix the input vectors of two rows; the mixed row must find the keys of both, each by its part: the term `contrast`.

    Source: i-Mix, arXiv 2010.08887, in its N-pair form: the first views are mixed, the second ones are the keys. As in the
    authors' code, each row has a part of its own, of which the larger one is the row's.

    Differs from the paper: rows are mixed with their newest items side by side. A mixed row is as long as the row itself: a
    longer partner loses its oldest items, and beside a shorter one the row's oldest items stay whole. Rows of one user or with
    one last target as either of the two are no negatives.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        temperature: Divisor of the cosines; 0.2 in the paper for images, 0.1 for tables.
        mix: Both parameters of the Beta distribution of the parts, alpha; 1 in the paper for images, 2 for a table.
        head: Projection before the contrast, dropped after training.
    """

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        temperature: float = 0.2,
        mix: float = 1.0,
        head: Head = "mlp",
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head)
        positive("IMix", temperature=temperature, mix=mix)
        self.temperature, self.mix = temperature, mix

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        both = self.make_views(batch)
        first, second = vectors_read(encoder, both).chunk(2)  # (B, L, D) each
        partner, part = self.draw(len(batch.lengths), first)
        mixed = torch.cat((mixed_with(first, halves(both)[0], partner, part), second))
        with reading(encoder, both, mixed) as marked:
            queries, keys = self.head(encoder.last(marked)).chunk(2)  # (B, D) each
        same = related(batch, both)  # (B, B)
        alike = same | same[partner]
        logits = similarities(queries, keys, "cosine") / self.temperature  # (B, B)
        rows = torch.arange(len(partner), device=partner.device)
        shares = torch.zeros_like(logits)
        shares[rows, rows] = part.to(logits)
        shares[rows, partner] += 1 - part.to(logits)  # a row that is its own partner keeps both parts
        own = torch.zeros_like(alike)
        own[rows, rows] = own[rows, partner] = True
        loss = contrast(logits, own, keep=~alike, shares=shares)
        self.observe(queries, keys, masked_share=masked_share(alike & ~own, among=~own))
        self.lack(contrast=alike.all())
        return {"contrast": self.weight * loss.masked_fill(alike.all(), 0.0)}

    def draw(self, rows: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Draw a partner for each row, (B,), and the row's own part, (B,), 0.5 to 1."""
        partner = torch.randperm(rows, device=like.device)
        both = torch.full((rows,), self.mix, device=like.device)
        part = torch.distributions.Beta(both, both, validate_args=False).sample()  # validating reads the device
        return partner, torch.maximum(part, 1 - part).to(like.dtype)


def mixed_with(vectors: Tensor, rows: SeqBatch, partner: Tensor, part: Tensor) -> Tensor:
    """Mix rows with their partners, the newest items side by side; where the partner has no item, the row stays: (B, L, D).

    Args:
        vectors: (B, L, D) of the rows' items.
        rows: the rows.
        partner: (B,) the row that each is mixed with.
        part: (B,) of the row itself.
    """
    time = torch.arange(vectors.shape[1], device=vectors.device)
    beside = (rows.lengths[partner] - rows.lengths)[:, None] + time  # (B, L), place in the partner
    there = beside.clamp(min=0, max=vectors.shape[1] - 1)[..., None].expand_as(vectors)
    other = vectors[partner].gather(1, there)
    part = part[:, None, None]
    return torch.where((beside >= 0)[..., None], part * vectors + (1 - part) * other, vectors)


class CLAE(ViewsObjective):
    """NT-Xent over two views, and over the first ones and harder second ones: the term `contrast` (CLAE, arXiv 2010.12050).

    A harder view has its input vectors moved so that the first contrast grows most; the move takes no gradient.

    Differs from the paper: a vector moves along its gradient, by a fraction of its own length, instead of by a sign in each
    channel: item embeddings have no fixed scale as pixels do. The second view is moved, where the authors' code moves the first
    and contrasts it with itself. There is no batch norm to keep apart. Rows of one user or with
    one last target are no negatives of each other.

    Args:
        views: Source of the two views of a row.
        dim: Width D of the encoder's states.
        weight: Factor of the term.
        temperature: Divisor of the cosines.
        epsilon: Length of the move, over that of the vector moved; 0.03 of the range of a pixel in the paper.
        adversarial: Factor of the harder contrast beside the plain one, alpha; 1 in the paper.
        head: Projection before the contrast, dropped after training.
    """

    def __init__(
        self,
        *,
        views: Pair | View,
        dim: int,
        weight: float = 0.1,
        temperature: float = 0.2,
        epsilon: float = 0.1,
        adversarial: float = 1.0,
        head: Head = "mlp",
    ) -> None:
        super().__init__(views=views, dim=dim, weight=weight, head=head)
        positive("CLAE", temperature=temperature)
        not_negative("CLAE", epsilon=epsilon, adversarial=adversarial)
        self.temperature, self.epsilon, self.adversarial = temperature, epsilon, adversarial

    def forward(self, encoder: Encoder, batch: SeqBatch) -> dict[str, Tensor]:
        both = self.make_views(batch)
        same = related(batch, both)
        with torch.enable_grad():  # the move needs a gradient where nothing is trained, too
            vectors = vectors_read(encoder, both)  # (2B, L, D)
            with reading(encoder, both, vectors) as marked:
                first, second = self.head(encoder.last(marked)).chunk(2)  # (B, D) each
            plain = nt_xent(first, second, temperature=self.temperature, same=same)
            loss = plain
            if self.adversarial:
                moved = vectors + self.move(plain, vectors)
                with reading(encoder, halves(both)[1], moved.chunk(2)[1]) as marked:
                    harder = self.head(encoder.last(marked))  # (B, D)
                loss = plain + self.adversarial * nt_xent(first, harder, temperature=self.temperature, same=same)
        self.observe(first.detach(), second.detach(), masked_share=related_share(same))
        self.lack(contrast=same.all())
        return {"contrast": self.weight * (loss if torch.is_grad_enabled() else loss.detach())}

    def move(self, loss: Tensor, vectors: Tensor) -> Tensor:
        """The move of each vector along the gradient of a loss, `epsilon` of its length: (B, L, D), without gradient."""
        (towards,) = torch.autograd.grad(loss, vectors, retain_graph=True)
        towards = towards.contiguous()
        processes.add_up([towards])  # each process has the gradient of the rows that it encoded
        size = torch.linalg.vector_norm(towards, dim=-1, keepdim=True).clamp(min=torch.finfo(towards.dtype).tiny)
        return self.epsilon * torch.linalg.vector_norm(vectors.detach(), dim=-1, keepdim=True) * towards / size
