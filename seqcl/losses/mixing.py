"""Synthetic negatives, mixed of the hardest keys of each query: MoCHi."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from seqcl.losses.contrastive import similarities


@torch.no_grad()
def hard_mixes(
    queries: Tensor,
    keys: Tensor,
    negatives: Tensor,
    *,
    hardest: int,
    of_keys: int,
    with_query: int,
    generator: Generator,
) -> Tensor:
    """Mix the hardest negatives of each query with each other and with the query itself: (B, S + S', D) of unit length.

    The first S are a n + (1 - a) m of two drawn keys n and m, with a drawn from 0 to 1; the others are b q + (1 - b) n of the
    query q and a drawn key n, with b drawn from 0 to 0.5. A query without a negative has mixes of zeros. Mixes take no gradient.

    Source: MoCHi, arXiv 2010.01028, section 4.1 and 4.2.

    Args:
        queries: (B, D) of unit length.
        keys: (C, D) of unit length.
        negatives: (B, C) bool, True where a key is a negative of the query.
        hardest: number of the most similar negatives that are drawn from; all of a query that has fewer.
        of_keys: S.
        with_query: S'.
        generator: source of the draws.
    """
    rows, device = len(queries), queries.device
    if not len(keys):
        return keys.new_zeros(rows, of_keys + with_query, keys.shape[1])
    cosines = similarities(queries, keys, "dot").masked_fill(~negatives, -torch.inf)  # (B, C)
    nearest = cosines.topk(min(hardest, len(keys)), 1).indices  # (B, N), related ones last
    known = negatives.sum(1).clamp(max=nearest.shape[1])  # (B,)

    def uniform(columns: int) -> Tensor:
        return torch.rand(rows, columns, generator=generator, device=device)

    def drawn(columns: int) -> Tensor:
        place = (uniform(columns) * known[:, None]).long().minimum((known[:, None] - 1).clamp(min=0))
        return keys[nearest.gather(1, place)]  # (B, S, D)

    share = torch.cat((uniform(of_keys), uniform(with_query) / 2), 1)[..., None].to(keys.dtype)  # (B, S + S', 1)
    partners = torch.cat((drawn(of_keys), queries[:, None].expand(-1, with_query, -1)), 1)
    mixes = share * partners + (1 - share) * drawn(of_keys + with_query)
    return F.normalize(mixes, dim=2).masked_fill((known == 0)[:, None, None], 0.0)
