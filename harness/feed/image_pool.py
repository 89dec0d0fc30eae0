"""Processes that read images ahead of the training loop, into memory that they share with it.

A DataLoader can only hand out what its sampler planned. Here any images can be asked for at any time from the same
processes, which is what held-out batches and learned samplers need, and pixels are never copied through a pipe.
"""

from __future__ import annotations

import math
import mmap
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.base.errors import RunFailed, UserError
from harness.base.launch import ranks_here
from harness.base.processes import become_dependent
from harness.feed.image_reader import ImageReader, ReadPlan

CHUNK = 8  # images that a process reads at a time: many enough that a task's own cost vanishes
MOST_WORKERS = 16
WORKERS_VARIABLE = "LTBENCH_LOADER_WORKERS"


def default_workers(device: torch.device) -> int:
    """Processes that read images for a run on this machine: `LTBENCH_LOADER_WORKERS`, else as many as cores beside a
    GPU, and one beside a processor, which trains slower than one process reads. Where several processes train the run
    together, this one's part of them. 0 where processes cannot be forked safely: images are read in this one.

    Raises:
        UserError: the variable is not a whole number of at least 0.
    """
    text = os.environ.get(WORKERS_VARIABLE, "")
    if text and not text.isdecimal():
        raise UserError(f"{WORKERS_VARIABLE}={text}: expected a whole number of at least 0")
    if sys.platform != "linux":
        return 0
    cores = min(MOST_WORKERS, len(os.sched_getaffinity(0))) if device.type == "cuda" else 1
    count = int(text) if text else cores
    return max(1, count // ranks_here()) if count else 0


@dataclass(frozen=True)
class Request:
    """Images to be read together."""

    paths: Sequence[str]
    plan: ReadPlan | None  # as `ImageReader.read` takes it

    def chunks(self) -> Iterator[Request]:
        """The same in pieces for one process each."""
        for start in range(0, len(self.paths), CHUNK):
            where = slice(start, start + CHUNK)
            yield Request(self.paths[where], self.plan and self.plan[where])


@dataclass(frozen=True)
class _Job:
    """A chunk that is being read into a buffer."""

    buffer: int
    future: Future[None]


class ImagePool:
    """Reads images in processes that start when they are first needed. To be closed after use.

    Args:
        reader: what becomes of a file.
        workers: number of processes; 0 reads in this one, when a batch is asked for.
        batch_size: images of a training batch; so many are read ahead, and a little more.
    """

    def __init__(self, reader: ImageReader, workers: int, batch_size: int) -> None:
        self.reader, self.workers = reader, workers
        self.ahead = -(-batch_size // CHUNK) + 2 * workers  # chunks of one reading
        self.reserve = 2 * max(1, workers)  # buffers that only images which are waited for may take
        self._executor: ProcessPoolExecutor | None = None
        self._free = list(range(2 * self.ahead + self.reserve)) if workers else []
        self._pixels = self._shared(len(self._free))

    def _shared(self, buffers: int) -> Tensor:
        """Not in /dev/shm, which is small in containers. Buffers that are never used take no memory."""
        shape = (max(1, buffers), CHUNK, self.reader.channels, self.reader.side, self.reader.side)
        return torch.frombuffer(mmap.mmap(-1, math.prod(shape)), dtype=torch.uint8).view(shape)

    def has_buffer(self, *, urgent: bool) -> bool:
        """Whether a chunk can be read now; what is not waited for leaves some buffers over."""
        return len(self._free) > (0 if urgent else self.reserve)

    def submit(self, request: Request) -> _Job:
        """Starts to read a chunk."""
        buffer = self._free.pop()  # the last one given back: its memory is still in the cache
        try:
            return _Job(buffer, self._send(buffer, request))
        except BrokenProcessPool:
            raise _worker_died() from None

    def _send(self, buffer: int, request: Request) -> Future[None]:
        if self._executor is not None:
            return self._executor.submit(_work, buffer, request)
        self._executor = ProcessPoolExecutor(
            self.workers,
            multiprocessing.get_context("fork"),
            initializer=_start_worker,
            initargs=(self.reader, self._pixels),
        )
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the new processes ignore it
        try:
            return self._executor.submit(_work, buffer, request)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def finish(self, job: _Job, pixels: Tensor) -> None:
        """Waits for a chunk and copies it out; shape as in `ImageReader.read`."""
        try:
            job.future.result()
        except BrokenProcessPool:
            raise _worker_died() from None
        except UserError as error:
            raise UserError(str(error)) from None  # without the other process's traceback
        pixels.copy_(self._pixels[job.buffer, : len(pixels)])
        self._free.append(job.buffer)

    def abandon(self, jobs: Sequence[_Job]) -> None:
        """Frees the buffers of chunks that nobody wants any more."""
        wait([job.future for job in jobs if not job.future.cancel()])
        self._free += [job.buffer for job in jobs]

    def close(self) -> None:
        """Ends the processes."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None


class Reading:
    """Batches that are read ahead in their order.

    Args:
        requests: one a batch, made when it is their turn.
        urgent: the batches are waited for at once.
    """

    def __init__(self, pool: ImagePool, requests: Iterable[Request], *, urgent: bool = False) -> None:
        self._pool, self._urgent = pool, urgent
        self._coming = (chunk for request in requests for chunk in request.chunks())
        self._jobs: deque[_Job] = deque()
        self._read_ahead()

    def _read_ahead(self) -> None:
        """Starts chunks as far as there is room; the first one may take what is kept in reserve."""
        if not self._pool.workers:
            return
        while len(self._jobs) < self._pool.ahead and self._pool.has_buffer(urgent=self._urgent or not self._jobs):
            chunk = next(self._coming, None)
            if chunk is None:
                return
            self._jobs.append(self._pool.submit(chunk))

    def take(self, pixels: Tensor) -> None:
        """Fills in the next batch; shape as in `ImageReader.read`.

        Raises:
            UserError: an image that cannot be read.
            RunFailed: a process has died.
        """
        for start in range(0, len(pixels), CHUNK):
            where = slice(start, start + CHUNK)
            self._read_ahead()
            if self._jobs:
                self._pool.finish(self._jobs.popleft(), pixels[where])
            else:  # no processes, or other readings hold every buffer
                chunk = next(self._coming)
                self._pool.reader.read(chunk.paths, chunk.plan, pixels[where])
        self._read_ahead()

    def close(self) -> None:
        """Gives up what has not been taken."""
        self._pool.abandon(self._jobs)
        self._jobs.clear()


def _worker_died() -> RunFailed:
    return RunFailed(
        "a process that reads images was killed; the machine may have run out of memory "
        f"(fewer processes: {WORKERS_VARIABLE})"
    )


_worker: tuple[ImageReader, Tensor]  # of a worker process: what it reads with, and into


def _start_worker(reader: ImageReader, pixels: Tensor) -> None:
    global _worker
    _worker = reader, pixels
    become_dependent()  # a run that is killed leaves nothing behind: its queue would never tell its workers
    torch.set_num_threads(1)


def _work(buffer: int, request: Request) -> None:
    reader, pixels = _worker
    count = len(request.paths)
    reader.read(request.paths, request.plan, pixels[buffer, :count])
