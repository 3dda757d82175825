"""Ask a collection in Milvus, as any index is asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqcl.errors import UserError
from seqcl.integrations.milvus.target import COLLECTION, TYPES, Target
from seqcl.retrieval.exact import checked_queries
from seqcl.types import PAD

BATCH_QUERIES = 256
LITE_LISTS = 128
"""Cells of milvus-lite's ivf, whatever it is told, and it does not say so."""


class MilvusIndex:
    """Finds items with a large inner product in a collection that `write` wrote.

    Args:
        client: a client of `Target.client`, open as long as this is used.
        target: the collection; what the alias names now is asked, also when it is switched.
        vectors: sha256 of the file of vectors that it must hold; None: any.

    Raises:
        UserError: there is no such collection, or it holds other vectors.
    """

    def __init__(self, client: Any, target: Target, *, vectors: str | None = None) -> None:
        found = target.written(client)
        if found is None:
            more = "" if target.collection == COLLECTION else f" --collection {target.collection}"
            raise UserError(f"{target} has no {target.collection}: write it with seqcl export DIR --to {target}{more}")
        if vectors is not None and target.parts(found)[1] != vectors[:16]:  # type: ignore[index]
            raise UserError(f"{target}: {target.collection} holds the items of another export; name its --collection")
        client.load_collection(found)  # milvus-lite forgets it between two processes
        self.client = client
        self.collection = found
        fields = client.describe_collection(found)["fields"]
        self.dim = next(int(field["params"]["dim"]) for field in fields if field["name"] == "vector")
        about = client.describe_index(found, "vector")
        self.kind = next(kind for kind, name in TYPES.items() if name == about["index_type"])
        self.lists = int(about.get("nlist", LITE_LISTS))
        self.name = f"milvus {self.kind}"

    def search(self, queries: Tensor, k: int, exclude: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Find the k best items of each query, as `ExactIndex.search`; a query with items to exclude is a call of its own.

        Raises:
            ValueError: a query holds a value that is not finite, or has another width than the vectors.
        """
        rows = checked_queries(queries, self.dim).cpu().numpy()
        scores = torch.full((len(rows), k), -torch.inf)
        items = torch.full((len(rows), k), PAD)
        seen: dict[int, list[int]] = {}
        for row, item in zip(*(part.tolist() for part in exclude), strict=True) if exclude else ():
            seen.setdefault(row, []).append(item)
        free = [row for row in range(len(rows)) if row not in seen]
        calls = [(free[at : at + BATCH_QUERIES], "") for at in range(0, len(free), BATCH_QUERIES)]
        calls += [([row], f"id not in {sorted(set(own))}") for row, own in seen.items()]
        for asked, condition in calls:
            for row, hits in zip(asked, self.ask(rows[asked], k, condition), strict=True):
                scores[row, : len(hits)] = torch.tensor([hit["distance"] for hit in hits], dtype=torch.float32)
                items[row, : len(hits)] = torch.tensor([hit["id"] for hit in hits], dtype=torch.long)
        return scores.to(queries.device), items.to(queries.device)

    def ask(self, rows: np.ndarray, k: int, condition: str) -> Any:
        """The hits of some queries under one condition."""
        widths = {"hnsw": {"ef": max(128, k)}, "ivf": {"nprobe": max(1, self.lists // 8)}}
        params = widths.get(self.kind.removesuffix("pq"), {})
        return self.client.search(
            self.collection,
            data=rows,
            limit=k,
            filter=condition,
            output_fields=["id"],
            search_params={"metric_type": "IP", "params": params},
        )
