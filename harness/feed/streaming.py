"""Large images stay files: processes decode, crop and resize them ahead of the loop.

A GPU changes colours itself: it has time to spare, and the processes that read for it have none. On a CPU those
processes do it. Lighting, Cutout and normalisation are always done on the device.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from harness.feed.augment import AugmentPlan, apply_plan
from harness.feed.image_pool import ImagePool, Reading
from harness.feed.image_reader import Request
from harness.feed.plans import EpochPlan
from harness.reading.dataset import ImageFiles
from harness.splits.splits import Split

FILES_AT_ONCE = {"cpu": 32, "cuda": 256}  # of an evaluation pass: such images are large


class StreamingPart:
    """One part of a split whose images are read from files when they are needed.

    An image depends only on its file and the plan of its position, not on the number of processes or on what was read
    before it.

    Args:
        images: the part's files and classes.
        split: whose mean and standard deviation normalise them.
        pool: the processes that read them; parts of one run share it.
    """

    def __init__(self, images: ImageFiles, split: Split, device: torch.device, pool: ImagePool) -> None:
        self.device = device
        self.labels = torch.from_numpy(images.labels).to(device)
        self.host_labels = images.labels
        self._images, self._pool, self._read_colors = images, pool, device.type == "cpu"
        self._mean = 255 * torch.tensor(split.mean, device=device).view(1, -1, 1, 1)
        self._scale = 1 / (255 * torch.tensor(split.std, device=device).view(1, -1, 1, 1))
        self._reading = Reading(pool, ())
        self._planned: deque[tuple[Tensor, Tensor]] = deque()  # index and seeds of each batch that it still holds

    def __len__(self) -> int:
        return len(self.labels)

    def start_epoch(self, plan: EpochPlan, batches: Sequence[slice]) -> None:
        """Starts to read the epoch's batches ahead; what is left of an earlier plan is given up.

        Args:
            plan: with the seed of each position.
            batches: which positions make a batch, in the order in which `batch` will be asked for them.
        """
        seed = plan.augment.seed
        assert seed is not None  # `plan_epoch` draws them for files
        self._planned = deque((plan.order[where], seed[where]) for where in batches)
        order = plan.order.cpu().numpy()  # waits for the device, once an epoch
        drawn = ((order[where], plan.augment[where]) for where in batches)
        self._reading = Reading(self._pool, (self._request(*some) for some in drawn))

    def batch(self, index: Tensor, plan: AugmentPlan | None = None) -> Tensor:
        """Normalised float32 images, shape (B, channels, height, width), channels last in memory.

        The batch that is next in the plan of the epoch has been read ahead; any other one is read now.

        Args:
            index: image indices, shape (B,).
            plan: of these B images, on their device; default images as they are in tests.

        Raises:
            UserError: an image that is missing, damaged, or too large; one line that names its file.
            RunFailed: a process that reads images has died.
        """
        if self._is_next(index, plan):
            self._planned.popleft()
            reading = self._reading
        else:
            reading = Reading(self._pool, [self._request(index.cpu().numpy(), plan)])
        return self._normalised(self._take(reading, len(index)), plan)

    def _is_next(self, index: Tensor, plan: AugmentPlan | None) -> bool:
        """Whether a batch is the planned one. Equal addresses are looked at first: a device need not be waited for."""
        if not self._planned or plan is None or plan.seed is None:
            return False
        expected, seed = self._planned[0]
        same_memory = index.data_ptr() == expected.data_ptr()
        return torch.equal(plan.seed, seed) and (same_memory or torch.equal(index, expected))

    def in_order(self, size: int, which: range) -> Iterator[Tensor]:
        """Those images as they are in tests, read ahead, in batches of at most `size`."""
        size = min(size, FILES_AT_ONCE[self.device.type])
        batches = [np.arange(start, min(start + size, which.stop)) for start in which[::size]]
        reading = Reading(self._pool, (self._request(index, None) for index in batches))
        for index in batches:
            yield self._normalised(self._take(reading, len(index)), None)

    def close(self) -> None:
        """Ends the processes, which other parts may share."""
        self._planned.clear()
        self._pool.close()

    def _request(self, index: npt.NDArray[np.int64], plan: AugmentPlan | None) -> Request:
        """Those images, and what of their plan is done in the processes."""
        paths = [str(self._images.root / self._images.names[i]) for i in index]
        upright = self._images.upright
        if plan is None:
            nothing = np.empty((len(paths), 0), np.int64), np.empty((len(paths), 0), np.float32)
            return Request(paths, None, *nothing, upright)
        assert plan.seed is not None
        steps = slice(None) if self._read_colors else slice(0)
        code, value = plan.host_code[:, steps], plan.value[:, steps].cpu()
        return Request(paths, plan.seed.numpy(), code.numpy(), value.numpy(), upright)

    def _take(self, reading: Reading, count: int) -> Tensor:
        """The next uint8 images, on the device: a quarter of the bytes of normalised ones."""
        reader = self._pool.reader
        shape = (count, reader.channels, reader.side, reader.side)
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        reading.take(pixels)
        return pixels.to(self.device, non_blocking=True)

    def _normalised(self, pixels: Tensor, plan: AugmentPlan | None) -> Tensor:
        if plan is not None:
            pixels = apply_plan(pixels, plan, operations=not self._read_colors)
        images = pixels.to(torch.float32, memory_format=torch.channels_last)
        return images.sub_(self._mean).mul_(self._scale)
