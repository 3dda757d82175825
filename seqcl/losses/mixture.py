"""The loss of a mixture of contrastive experts."""

from __future__ import annotations

import torch
from torch import Tensor

from seqcl.losses.contrastive import wide
from seqcl.losses.given import check_above_zero, check_partners, mean


def mixture(queries: Tensor, keys: Tensor, gate: Tensor, *, temperature: float, same: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of -log sum_z p(z) p(own key | z): a scalar; and the posterior of the experts, without gradient: (B, K).

    p(z) is the softmax of the gate, p(key | z) that of the inner products with the keys of expert z over the temperature.
    One expert is InfoNCE; equal experts are too, whatever the gate. Source: MiCE, arXiv 2105.01899, section 4.

    Args:
        queries: (B, K, D).
        keys: (B, K, D).
        gate: (B, K) logits.
        temperature: Divisor of the inner products.
        same: (B, B) bool, True where the keys of two rows are no negatives of each other.

    Raises:
        UserError: queries and keys differ in their shape, or the temperature is not above 0.
    """
    check_partners("mixture", queries, keys)
    check_above_zero("mixture", temperature=temperature)
    with torch.autocast(queries.device.type, enabled=False):
        logits = torch.einsum("bkd,ckd->kbc", wide(queries), wide(keys)) / temperature  # (K, B, B)
    own = logits.diagonal(dim1=1, dim2=2).T  # (B, K)
    itself = torch.eye(len(same), dtype=torch.bool, device=same.device)
    found = own - logits.masked_fill(same & ~itself, -torch.inf).logsumexp(2).T  # (B, K), log p(own key | z)
    joint = wide(gate).log_softmax(1) + found
    return -mean(joint.logsumexp(1)), joint.detach().softmax(1)
