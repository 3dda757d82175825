"""Join questions that arrive while the model is busy into one call of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")

TOGETHER = 64
"""Questions that one call takes at most."""


class Batcher(Generic[Question, Answer]):
    """Answers the questions of many requests. Nothing waits for company: what has come when the model is free goes in.

    Args:
        work: answers questions in their order; it runs in the executor.
        executor: has one thread, so that one call follows the other.
        told: is told how many questions each call has.
    """

    def __init__(
        self,
        work: Callable[[list[Question]], Sequence[Answer]],
        executor: Executor,
        told: Callable[[int], object] = lambda size: None,
    ) -> None:
        self.work, self.executor, self.told = work, executor, told
        self.waiting: deque[tuple[list[Question], asyncio.Future[list[Answer]]]] = deque()
        self.task: asyncio.Task[None] | None = None

    async def ask(self, questions: list[Question]) -> list[Answer]:
        """The answers to the questions of one request; between the parts of a long one, others have their turn."""
        found: list[Answer] = []
        for start in range(0, len(questions), TOGETHER):
            future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
            self.waiting.append((questions[start : start + TOGETHER], future))
            if self.task is None or self.task.done():
                self.task = asyncio.create_task(self.drain())
            found += await future
        return found

    async def drain(self) -> None:
        """Answer until nothing waits."""
        while self.waiting:
            taken = [self.waiting.popleft()]
            size = len(taken[0][0])
            while self.waiting and size + len(self.waiting[0][0]) <= TOGETHER:
                taken.append(self.waiting.popleft())
                size += len(taken[-1][0])
            self.told(size)
            try:
                await self.answer(taken)
            except Exception:  # one of them may be to blame, so each is asked alone
                for one in taken:
                    try:
                        await self.answer([one])
                    except Exception as error:
                        if not one[1].done():
                            one[1].set_exception(error)

    async def answer(self, taken: list[tuple[list[Question], asyncio.Future[list[Answer]]]]) -> None:
        """Answer some requests in one call."""
        together = [question for questions, _ in taken for question in questions]
        answers = iter(await asyncio.get_running_loop().run_in_executor(self.executor, self.work, together))
        for questions, future in taken:
            own = [next(answers) for _ in questions]
            if not future.done():  # its request may be gone
                future.set_result(own)
