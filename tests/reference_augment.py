"""Slow, obvious oracles of augmentation: the whole distribution of a view of one row, and dense item correlation."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import combinations, pairwise, permutations

Row = tuple[int, ...]
Law = dict[Row, Fraction]
"""All results that a view of a row can have, each with its probability."""


def _law(outcomes: Iterable[Row]) -> Law:
    counts = Counter(outcomes)
    return {row: Fraction(count, counts.total()) for row, count in counts.items()}


def _portion(n: int, rate: str, least: int = 0) -> int:
    return min(max(math.floor(n * Fraction(rate)), least), n)


def _windows(n: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(n - size + 1))


def crop(row: Row, rate: str) -> Law:
    return _law(row[window] for window in _windows(len(row), max(1, _portion(len(row), rate))))


def mask(row: Row, rate: str, token: int, least: int = 0) -> Law:
    sets = combinations(range(len(row)), _portion(len(row), rate, least))
    return _law(tuple(token if t in chosen else item for t, item in enumerate(row)) for chosen in sets)


def reorder(row: Row, rate: str, least: int = 0) -> Law:
    return _law(
        row[: window.start] + shuffled + row[window.stop :]
        for window in _windows(len(row), _portion(len(row), rate, least))
        for shuffled in permutations(row[window])
    )


def substitute(row: Row, rate: str, neighbour: dict[int, int], least: int = 0) -> Law:
    sets = combinations(range(len(row)), _portion(len(row), rate, least))
    return _law(tuple(neighbour[item] if t in chosen else item for t, item in enumerate(row)) for chosen in sets)


def insert(row: Row, rate: str, neighbour: dict[int, int], max_len: int, least: int = 0) -> Law:
    outcomes = []
    for chosen in combinations(range(len(row)), _portion(len(row), rate, least)):
        grown: list[int] = []
        for t, item in enumerate(row):
            grown += [neighbour[item], item] if t in chosen else [item]
        outcomes.append(tuple(grown[-max_len:]))
    return _law(outcomes)


def node_drop(row: Row, rate: str, least: int = 0) -> Law:
    nodes = sorted(set(row))
    size = max(least, _portion(len(nodes), rate))
    sets = combinations(nodes, size if size < len(nodes) else 0)
    return _law(tuple(item for item in row if item not in gone) for gone in sets)


def edge_drop(row: Row, rate: str, least: int = 0) -> Law:
    edges = sorted(set(pairwise(row)))
    laws = []
    for cut in combinations(edges, min(len(edges), max(least, _portion(len(edges), rate)))):
        pieces = [[row[0]]]
        for one, two in pairwise(row):
            if (one, two) in cut:
                pieces.append([])
            pieces[-1].append(two)
        laws.append(_law(tuple(item for piece in order for item in piece) for order in permutations(pieces)))
    return mixture(laws)


def subgraph(row: Row, rate: str) -> Law:
    beside = {item: {two for pair in pairwise(row) for one, two in (pair, pair[::-1]) if one == item} for item in row}
    size = max(1, _portion(len(beside), rate))

    def walks(found: frozenset[int]) -> Law:
        if len(found) == size:
            return {tuple(item for item in row if item in found): Fraction(1)}
        return mixture([walks(found | {new}) for new in sorted(set().union(*(beside[one] for one in found)) - found)])

    return mixture([walks(frozenset([item])) for item in beside])


def mixture(laws: list[Law]) -> Law:
    """Mix the laws, each equally likely."""
    mixed: Law = defaultdict(Fraction)
    for law in laws:
        for row, probability in law.items():
            mixed[row] += probability / len(laws)
    return dict(mixed)


def item_cf_iuf(pairs: Iterable[tuple[int, int]], num_items: int) -> list[list[float]]:
    """Compute the dense matrix w_ij of item correlation from (user, item) pairs, 0 on the diagonal: (N + 2) x (N + 2)."""
    baskets: dict[int, set[int]] = defaultdict(set)
    for user, item in pairs:
        baskets[user].add(item)
    buyers = Counter(item for basket in baskets.values() for item in basket)
    matrix = [[0.0] * (num_items + 2) for _ in range(num_items + 2)]
    for basket in baskets.values():
        for i, j in permutations(basket, 2):
            matrix[i][j] += 1 / math.log(1 + len(basket)) / math.sqrt(buyers[i] * buyers[j])
    return matrix


def same_target_rows(rows: list[list[int]], target: int, user: int) -> list[tuple[int, ...]]:
    """List the items before every occurrence of the target in the rows of all other users."""
    found = []
    for number, row in enumerate(rows):
        if number != user:
            found += [tuple(row[:place]) for place in range(1, len(row)) if row[place] == target]
    return found


def nearest(table, item: int) -> list[tuple[float, int]]:
    """List (cosine, other item), largest first, PAD and MASK left out."""
    found = []
    for other in range(1, len(table) - 1):
        if other != item:
            one, two = table[item], table[other]
            found.append((float(one @ two / (one.norm() * two.norm())), other))
    return sorted(found, reverse=True)


def variance(times: list[float]) -> float:
    """Compute the variance of the gaps between neighbouring times, 0 where there is no gap."""
    gaps = [late - early for early, late in pairwise(times)]
    if not gaps:
        return 0.0
    mean = sum(gaps) / len(gaps)
    return sum((gap - mean) ** 2 for gap in gaps) / len(gaps)


def even_starts(times: list[float], size: int) -> set[int]:
    """Find the begins of the windows of `size` items whose gaps vary least."""
    found = {start: variance(times[start : start + size]) for start in range(len(times) - size + 1)}
    return {start for start, value in found.items() if value <= min(found.values()) + 1e-9}


def gap_sets(times: list[float], count: int, largest: bool, before: bool = False) -> set[tuple[int, ...]]:
    """List all sets of `count` positions with the largest or smallest gaps before them, or behind them with `before`.

    The one position without such a gap comes last.
    """
    gaps = [late - early for early, late in pairwise(times)]
    known = [gap if largest else -gap for gap in gaps]
    ranked = [*known, -math.inf] if before else [-math.inf, *known]
    totals = {
        chosen: sorted((ranked[t] for t in chosen), reverse=True) for chosen in combinations(range(len(times)), count)
    }
    best = max(totals.values())
    return {chosen for chosen, values in totals.items() if values == best}
