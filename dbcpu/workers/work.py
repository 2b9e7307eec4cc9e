"""What workers do, and what they report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Task = TypeVar("Task")
TaskIn = TypeVar("TaskIn", contravariant=True)
Answer = TypeVar("Answer")
AnswerOut = TypeVar("AnswerOut", covariant=True)


class Work(Protocol[TaskIn, AnswerOut]):
    """Something to do many times, with a part that is prepared once and shared.

    It is pickled before it is prepared; tasks and answers are pickled too.
    """

    def prepare(self) -> object:
        """Load what every task needs; called once, before workers are forked. It must not start threads.

        Returns:
            Anything that can be pickled; the pool shows it as `facts`.
        """

    def __call__(self, task: TaskIn) -> Iterable[AnswerOut]:
        """Do one task; runs in several threads at once, the lanes of a worker."""


@dataclass(frozen=True)
class Answered(Generic[Answer]):
    """A task gave one of its answers."""

    ticket: int
    answer: Answer


@dataclass(frozen=True)
class Finished:
    """A task has given its last answer."""

    ticket: int


@dataclass(frozen=True)
class Raised:
    """A task raised an error that its work does not handle."""

    ticket: int
    error: Exception


@dataclass(frozen=True)
class Died:
    """The process that worked on a task is gone.

    Attributes:
        ticket: of the task.
        reason: a clause for people, such as "killed by SIGSEGV", or what `kill` was called with.
        is_culprit: True for the only task of the process, or the one it was killed for; False for a bystander of that;
            None where one of several tasks must have been the cause.
    """

    ticket: int
    reason: str
    is_culprit: bool | None


Event = Answered[Answer] | Finished | Raised | Died
