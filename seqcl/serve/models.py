"""The models of a server by name: each can be opened anew, and another one made the default, while requests come in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from seqcl.errors import UserError, unknown
from seqcl.serve.batcher import Batcher
from seqcl.serve.gate import Counters
from seqcl.serve.served import Answer, Missing, Question, Served


@dataclass(frozen=True, eq=False)
class Named:
    """A model under its name; a request keeps the one that it began with."""

    name: str
    served: Served
    batcher: Batcher[Question, Answer]


@dataclass(eq=False)
class Models:
    """The models of a server.

    Args:
        places: their folders by name, the default one first.
        opened: opens a folder.
        counters: are told how many histories go together.
    """

    places: Mapping[str, Path]
    opened: Callable[[Path], Served]
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        self.answering = ThreadPoolExecutor(1, "answers")  # one call of a model at a time
        self.looking = ThreadPoolExecutor(1, "looks")  # near items and searches
        self.opening = ThreadPoolExecutor(1, "opens")  # which may take minutes
        self.lock = asyncio.Lock()
        self.default = next(iter(self.places))
        self.named = {name: self.name(name, self.opened(place)) for name, place in self.places.items()}

    def name(self, name: str, served: Served) -> Named:
        """Give an opened model its name."""
        self.counters.models.labels(name).set(served.num_items)
        return Named(name, served, Batcher(served.answer, self.answering, self.counters.together.labels(name).observe))

    def find(self, name: str | None) -> Named:
        """The model of a name; without one, the default.

        Raises:
            Missing: there is none of this name.
        """
        if name is None:
            return self.named[self.default]
        if name not in self.named:
            raise Missing(str(unknown("model", name, self.named)))
        return self.named[name]

    async def reopen(self, name: str) -> Named:
        """Open the folder of a model again, which may be another one by now if it is a link; then requests go to it.

        Raises:
            UserError: there is no model of this name, another one is being opened, or the folder cannot be opened; the old one stays.
        """
        self.find(name)
        if self.lock.locked():
            raise UserError("a model is being opened already")
        async with self.lock:
            served = await asyncio.get_running_loop().run_in_executor(self.opening, self.opened, self.places[name])
            self.named[name] = self.name(name, served)
        return self.named[name]

    def close(self) -> None:
        """End the threads, after what they do."""
        self.answering.shutdown()
        self.looking.shutdown()
        self.opening.shutdown()
