"""Batches of crops without end, cut in this process or by workers ahead of the steps that take them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from multiprocessing.util import Finalize
from typing import TypeAlias

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from scripts.train.sources import CropReader

TensorBatch: TypeAlias = tuple[Tensor, ...]  # what `CropReader.draw_batch` returns


def open_stream(reader: CropReader, count: int, workers: int, *, pinned: bool = False) -> Iterator[TensorBatch]:
    """Return batches of `reader`, each as large as `draw_batch(count)` makes it.

    Args:
        reader: what cuts them. Workers take copies of it, with generators seeded from torch's.
        count: of crops, see `CropReader.draw_batch`.
        workers: processes that cut; 0 cuts here, with the reader's own generator, when a batch is asked for.
        pinned: whether to put batches where a GPU copies them from fastest.
    """
    # A forked process can hang in what threads of torch or OpenCV held when it was made.
    context = "spawn" if workers else None
    stream = _Stream(reader, count)
    return iter(
        DataLoader(stream, batch_size=None, num_workers=workers, multiprocessing_context=context, pin_memory=pinned)
    )


class _Stream(IterableDataset[TensorBatch]):
    def __init__(self, reader: CropReader, count: int) -> None:
        self._reader, self._count = reader, count

    def __iter__(self) -> Iterator[TensorBatch]:
        worker = get_worker_info()
        if worker is not None:
            os.setpgid(0, 0)  # signals to the run's group are meant for the run, which ends its workers
            Finalize(None, _await_sending, exitpriority=0)
            cv2.setNumThreads(1)
            self._reader.rng = np.random.default_rng(worker.seed)
            self._reader.cached_pages //= worker.num_workers
        while True:
            yield tuple(map(torch.from_numpy, self._reader.draw_batch(self._count)))


def _await_sending() -> None:
    """Let the thread finish that sends batches: a process that ends while it is inside torch is aborted."""
    for thread in threading.enumerate():
        if thread.name == "QueueFeederThread":
            thread.join(10)
