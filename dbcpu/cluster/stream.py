"""The dataset: parcels as they are laid out, through a pool of actors, answers as they come."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dbcpu.cluster.worker import PageWorker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ray.actor import ActorHandle

    from dbcpu.cluster.worker import Shipment

IN_FLIGHT = 2  # parcels of a worker: one in work, one that is there when it ends


class Desktop(Datasource):  # type: ignore[misc]  # of no known type
    """What is laid out on a desk, as a source of Ray Data: a block for each parcel, in the order of their numbers."""

    def __init__(self, desk: ActorHandle[Any], first: int) -> None:
        self._desk = desk
        self._first = first

    def estimate_inmemory_data_size(self) -> int | None:
        """Return the size in memory: unknown."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """Return the one task that takes parcels off the desk."""
        del parallelism, per_task_row_limit, data_context
        desk, number = self._desk, self._first

        def read(number: int = number) -> Iterator[pa.Table]:
            while (content := ray.get(desk.take.remote(number))) is not None:
                yield pa.table({"number": [number], "parcel": pa.array([content], pa.binary())})
                number += 1

        return [ReadTask(read, BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None))]


class Stream:
    """A dataset that is being worked on, in a thread of its own.

    Args:
        desk: that parcels are laid out on.
        shipment: for each worker.
        first: number of a parcel.
        workers: how many there are at the start.
        most_workers: how many there may be when the cluster grows; None for any number.
        cpus: of each worker.
    """

    def __init__(
        self,
        desk: ActorHandle[Any],
        shipment: Shipment,
        *,
        first: int,
        workers: int,
        most_workers: int | None,
        cpus: int,
    ) -> None:
        context = DataContext.get_current().copy()
        context.target_max_block_size = 1  # each row is a block, which goes on its way at once
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        with DataContext.current(context):
            parcels = ray.data.read_datasource(
                Desktop(desk, first), override_num_blocks=1, num_cpus=0, scheduling_strategy=here
            )
            self._answers = parcels.map_batches(
                PageWorker,
                fn_constructor_args=(shipment, desk),
                batch_size=None,
                batch_format="numpy",
                num_cpus=cpus,
                compute=ActorPoolStrategy(
                    min_size=workers,
                    initial_size=workers,
                    max_size=most_workers,
                    max_tasks_in_flight_per_actor=IN_FLIGHT,
                ),
            )
        self._arrived: queue.SimpleQueue[tuple[int, bytes] | BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._consume, daemon=True)
        self._thread.start()

    def wait(self, timeout: float) -> list[tuple[int, bytes]]:
        """Return the answers that have come, by the numbers of their parcels; empty after `timeout` seconds.

        Raises:
            Exception: the dataset has come to an end that was not asked for.
        """
        found: list[tuple[int, bytes]] = []
        with contextlib.suppress(queue.Empty):
            item = self._arrived.get(timeout=timeout)
            while True:
                if isinstance(item, BaseException):
                    raise item
                if item is not None:
                    found.append(item)
                item = self._arrived.get_nowait()
        return found

    def join(self, timeout: float) -> bool:
        """Wait for the end of the dataset, once its desk is closed: whether it came in `timeout` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _consume(self) -> None:
        try:
            for batch in self._answers.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy"):
                for number, answer in zip(batch["number"].tolist(), batch["answer"], strict=True):
                    self._arrived.put((number, answer))
        except BaseException as error:
            self._arrived.put(error)
