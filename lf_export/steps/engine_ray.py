"""Tasks on a Ray cluster: one of this machine, or one that runs already."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

from lf_export.errors import ExportError, MissingError, StepError
from lf_export.progress import say
from lf_export.steps.engine import Task

# A worker that is lost is replaced that often; what it had finished is in the journals of its step.
_RETRIES = 3
# Ray gives up on its own processes after half a minute, which a busy machine takes.
_START_SECONDS = "180"
# Results are paths and figures: Ray's least store is enough.
_STORE_BYTES = 80 << 20


@contextmanager
def ray_cluster(address: str | None) -> Iterator["RayCluster"]:
    """A cluster at `address`, such as `auto` or `ray://head:10001`; one of this machine's cores for None.

    Raises:
        MissingError: Ray is not installed.
        StepError: the cluster cannot be started or reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", _START_SECONDS)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what the worker sees of a GPU is not hidden
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingError("the package ray is not installed", "pip install 'lf-export[ray]'") from error
    own: dict[str, Any] = {
        "num_cpus": len(os.sched_getaffinity(0)),
        "object_store_memory": _STORE_BYTES,
        "include_dashboard": False,
    }
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="error", **({} if address else own))
    except Exception as error:  # Ray raises plain ones: "The current node timed out during startup"
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise StepError(f"ray: no cluster at {address or 'this machine'}: {first}", "see --ray-address") from error
    try:
        with redirect_stdout(sys.stderr):  # Ray prints there that a worker was lost; standard output is the outcome's
            yield RayCluster(ray)
    finally:
        ray.shutdown()


class RayCluster:
    """See `Cluster`; `ray` is the module, connected."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def results(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """See `Cluster.results`."""
        ray = self._ray
        for task in tasks:
            self._check_room(task)
        waiting = {self._submitted(task): task for task in tasks}
        try:
            while waiting:
                (done, *_), _ = ray.wait(list(waiting), num_returns=1)
                task = waiting.pop(done)
                yield task, self._result(task, done)
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)

    def _submitted(self, task: Task) -> Any:
        memory = {"memory": task.memory} if task.memory else {}
        remote = self._ray.remote(task.function).options(
            name=f"lf-export {task.name}", num_cpus=task.threads, num_gpus=0, max_retries=_RETRIES, **memory
        )
        say(f"{task.name}: given to the cluster")
        return remote.remote(**task.arguments)

    def _result(self, task: Task, done: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(done)
        except errors.RayTaskError as error:
            if isinstance(error.cause, ExportError):
                raise error.cause from None
            raise
        except errors.RayError as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise StepError(
                f"{task.name}: its worker was lost {_RETRIES + 1} times: {first}", "run the same command again to go on"
            ) from error

    def _check_room(self, task: Task) -> None:
        """A task that no machine can hold would wait for ever."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(
            node.get("CPU", 0) >= task.threads and node.get("memory", 0) >= (task.memory or 0) for node in nodes
        ):
            largest = max((node.get("memory", 0) for node in nodes), default=0)
            raise StepError(
                f"{task.name}: needs {task.threads} processors and {(task.memory or 0) / 1e9:.1f} GB of memory on one "
                f"machine, no machine of the cluster has both (the largest memory is {largest / 1e9:.1f} GB)",
                "fewer --threads, or larger machines",
            )
