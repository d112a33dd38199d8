"""Where the steps of a run are done: in this process, or as tasks that may run beside each other.

A task is a function of this package and plain values: what it reads and makes lies in folders that every machine sees.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Task:
    """A piece of a run that needs no other that runs with it.

    Attributes:
        name: in messages.
        function: a function of a module, so that another process finds it.
        arguments: its keyword arguments, values that can be pickled.
        threads: that it computes with.
        memory: bytes of memory that it takes, None where it is not known.
    """

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any] = field(hash=False)
    threads: int = 1
    memory: int | None = None


class Cluster(Protocol):
    """Where tasks run beside each other."""

    def results(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """Each task with what its function returned, as soon as it is done.

        Raises:
            ExportError: what a task raised; those under way are ended, what they have written stays.
            StepError: a task's worker was lost again and again, or no machine has room for it.
        """


def opened(engine: str, address: str | None) -> AbstractContextManager[Cluster | None]:
    """The cluster of that engine, left when the block ends; None for the local engine.

    Raises:
        MissingError: the engine's package is not installed.
        StepError: the cluster cannot be reached.
    """
    if engine == "local":
        return nullcontext()
    from lf_export.steps.engine_ray import ray_cluster  # noqa: PLC0415 - an extra

    return ray_cluster(address)
