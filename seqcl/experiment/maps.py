"""A map of item vectors in the plane, by t-SNE (van der Maaten and Hinton, JMLR 9, 2008)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from torch import Tensor

from seqcl.errors import UserError
from seqcl.types import Bag

MOST = 4000
"""Items on a map: a third of them the most popular, the rest drawn at random; t-SNE takes some 20 seconds for them."""

WORDS = 7
"""Words that have a colour of their own."""


def check_maps() -> None:
    """Refuse to go on without scikit-learn.

    Raises:
        UserError: names the extra to install.
    """
    try:
        import sklearn.manifold  # noqa: F401
    except ImportError:
        raise UserError(
            "a map of the items needs scikit-learn: pip install 'seqcl[maps]', or leave it out with --map none"
        ) from None


def map_of(
    vectors: Tensor, counts: np.ndarray, ids: np.ndarray, raw: np.ndarray, words: Bag | None, *, seed: int = 0
) -> dict[str, Any]:
    """Place items in the plane so that items with a small cosine distance are neighbours.

    Args:
        vectors: (n, D) of items.
        counts: (n,) training counts.
        ids: (n,) their ids.
        raw: (N,) raw ids.
        words: attributes of PAD, the items and MASK, of which the most frequent ones have a colour; None: colour by count.
        seed: of the draw of items.

    Returns:
        `x`, `y`, `count`, raw `item` and, with words, `word` of each item on the map (its most frequent one of the first
        seven, else "other"); `trustworthiness`: how far the 10 nearest on the map are near in truth, 1 at best.

    Raises:
        UserError: scikit-learn is missing, or there are fewer than 4 items with a vector.
    """
    check_maps()
    from sklearn.manifold import TSNE, trustworthiness

    there = np.flatnonzero(vectors.norm(dim=1).cpu().numpy() > 0)
    if len(there) < 4:
        raise UserError(f"a map needs 4 items or more, not {len(there)}")
    order = there[np.argsort(-counts[there], kind="stable")]
    popular, rest = order[: MOST // 3], order[MOST // 3 :]
    chosen = np.sort(np.concatenate((popular, np.random.default_rng(seed).permutation(rest)[: MOST - len(popular)])))
    unit = vectors.double().cpu().numpy()[chosen]
    unit = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype(np.float32)  # so that distance goes with cosine
    perplexity = min(30.0, (len(unit) - 1) / 3)
    places = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(unit)
    found = {
        "method": "t-SNE",
        "perplexity": perplexity,
        "trustworthiness": float(trustworthiness(unit, places, n_neighbors=min(10, (len(unit) - 1) // 2))),
        "x": places[:, 0],
        "y": places[:, 1],
        "count": counts[chosen],
        "item": raw[ids[chosen] - 1],
    }
    return found if words is None else found | {"word": words_of(words, ids[chosen])}


def words_of(words: Bag, ids: np.ndarray) -> list[str]:
    """For each item its most frequent word, if that is among the first few of all; else "other"."""
    rows = [
        [words.names[word] for word in words.ids[words.offsets[item] : words.offsets[item + 1]]]
        for item in ids.tolist()
    ]
    number = Counter(word for row in rows for word in row)
    common = {word for word, _ in sorted(number.items(), key=lambda one: (-one[1], one[0]))[:WORDS]}
    found = []
    for row in rows:
        shown = sorted(common.intersection(row), key=lambda word: (-number[word], word))
        found.append(shown[0] if shown else "other")
    return found
