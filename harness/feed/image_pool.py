"""Processes that read images ahead of the training loop.

A DataLoader only hands out what its sampler planned. Held-out batches and learned samplers need other images in
between, read by the same processes.
"""

from __future__ import annotations

import math
import mmap
import multiprocessing
import os
import signal
import sys
import time
import weakref
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from harness.base.errors import RunFailed, UserError
from harness.base.launch import ranks_here
from harness.base.processes import become_dependent
from harness.feed.image_reader import ImageReader, Request
from harness.reading.pixels import Pixels

CHUNK = 8  # images that a process reads at a time: many enough that a task's own cost vanishes
MOST_WORKERS = 16
WORKERS_VARIABLE = "LTBENCH_LOADER_WORKERS"
ENDS = {signal.SIGINT, signal.SIGTERM}
GRACE = 1.0  # seconds before a dead process fails its run: where all are being ended, this one is too


def default_workers(device: torch.device) -> int:
    """How many processes read images for a run on this machine.

    `LTBENCH_LOADER_WORKERS`, else beside a GPU one for each core but the one that the loop needs, at most 16; beside a
    CPU, which trains slower than one process reads, one in all. Processes that train one run together share them. 0
    where forking is not safe: then images are read in this process.

    Raises:
        UserError: the variable is not a whole number of at least 0.
    """
    text = os.environ.get(WORKERS_VARIABLE, "")
    if text and not text.isdecimal():
        raise UserError(f"{WORKERS_VARIABLE}={text}: expected a whole number of at least 0")
    if sys.platform != "linux":
        return 0
    cores = min(MOST_WORKERS, len(os.sched_getaffinity(0)) - 1) if device.type == "cuda" else 1
    count = int(text) if text else max(1, cores)
    return max(1, count // ranks_here()) if count else 0


class ImagePool:
    """Reads images in processes that start when they are first needed. Close it after use.

    They write into memory that is shared with this process, as long as a place is free there: through a pipe, pixels
    would be copied five times.

    Args:
        reader: what becomes of a file.
        workers: number of processes; 0 reads in this one, when a batch is asked for.
        batch_size: images of a training batch; so many are read ahead, and a little more.
    """

    def __init__(self, reader: ImageReader, workers: int, batch_size: int) -> None:
        self.reader, self._workers = reader, workers
        self.ahead = -(-batch_size // CHUNK) + 2 * workers if workers else 0  # chunks
        self._executor: ProcessPoolExecutor | None = None
        self._places: Pixels  # (places, CHUNK, side, side, channels)
        self._free: list[int] = []

    def submit(self, request: Request) -> Job:
        """Starts to read a chunk."""
        if self._executor is None:
            self._executor = self._started()
        place = self._free.pop() if self._free else None
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # until a new process has its own answer to them
        try:
            future = self._executor.submit(_work, request, place)
        except BrokenProcessPool:
            raise _worker_died() from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if place is not None:  # free again when neither the executor nor who asked for it holds the result
            weakref.finalize(future, self._free.append, place)
        return Job(future, None if place is None else self._places[place, : len(request.places)])

    def _started(self) -> ProcessPoolExecutor:
        places, reader = 2 * self.ahead, self.reader
        shape = (places, CHUNK, reader.side, reader.side, reader.channels)
        self._places = np.frombuffer(mmap.mmap(-1, math.prod(shape)), np.uint8).reshape(shape)
        self._free = list(range(places))
        fork = multiprocessing.get_context("fork")
        return ProcessPoolExecutor(self._workers, fork, _start_worker, (reader, self._places))

    def close(self) -> None:
        """Ends the processes."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None


@dataclass(frozen=True)
class Job:
    """A chunk that a process reads, and where it writes it; None: the result has the pixels itself."""

    future: Future[Pixels | None]
    place: Pixels | None

    def pixels(self) -> Pixels:
        """Waits for them: (n, side, side, channels)."""
        found = self.future.result()
        if found is None:
            assert self.place is not None
            return self.place
        return found


class Reading:
    """Batches that are read ahead in their order. What is not taken ends with the pool.

    Args:
        requests: one a batch, made when it is their turn.
    """

    def __init__(self, pool: ImagePool, requests: Iterable[Request]) -> None:
        self._pool = pool
        self._coming = (chunk for request in requests for chunk in request.chunks(CHUNK))
        self._jobs: deque[Job] = deque()
        self._read_ahead()

    def _read_ahead(self) -> None:
        room = self._pool.ahead - len(self._jobs)
        self._jobs.extend(self._pool.submit(chunk) for chunk in islice(self._coming, room))

    def take(self, pixels: Tensor) -> None:
        """Fills in the next batch, uint8 of shape (B, side, side, channels).

        Raises:
            UserError: an image that cannot be read.
            RunFailed: a process has died.
        """
        for start in range(0, len(pixels), CHUNK):
            self._read_ahead()
            self._fill(pixels[start : start + CHUNK])
        self._read_ahead()

    def _fill(self, pixels: Tensor) -> None:
        if not self._jobs:  # there are no processes
            self._pool.reader.read(next(self._coming), pixels.numpy())
            return
        job = self._jobs.popleft()
        try:
            pixels.copy_(torch.from_numpy(job.pixels()))
        except BrokenProcessPool:
            raise _worker_died() from None
        except UserError as error:
            raise UserError(str(error)) from None  # without the other process's traceback


def _worker_died() -> RunFailed:
    time.sleep(GRACE)
    return RunFailed(
        "a process that reads images was killed; the machine may have run out of memory "
        f"(fewer processes: {WORKERS_VARIABLE})"
    )


_reader: ImageReader  # of a worker process
_places: Pixels


def _start_worker(reader: ImageReader, places: Pixels) -> None:
    global _reader, _places
    _reader, _places = reader, places
    become_dependent()  # a run that is killed leaves nothing behind: its queue would never tell its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # with it the executor ends the others, where one has died
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
    torch.set_num_threads(1)


def _work(request: Request, place: int | None) -> Pixels | None:
    count = len(request.places)
    if place is None:
        return _reader.read(request)
    _reader.read(request, _places[place, :count])
    return None
