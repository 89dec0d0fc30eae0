"""Large images stay files: processes decode, crop and resize them ahead of the loop.

Colours are the device's work where it is a GPU: it has time, and processors that read for it have none. Beside a
processor the processes change them too. Lighting, Cutout and normalisation are always done on the device.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from harness.feed.augment import AugmentPlan, apply_plan
from harness.feed.image_pool import ImagePool, Reading, Request
from harness.feed.image_reader import ReadPlan
from harness.reading.dataset import ImageFiles
from harness.splits.splits import Split


def draw_seeds(count: int, rng: np.random.Generator) -> Tensor:
    """A seed for each position of an epoch, shape (count,): of the crop and flip of its image."""
    return torch.from_numpy(rng.integers(0, 2**63 - 1, count))


class StreamingPart:
    """One part of a split whose images are read from files when they are needed.

    What becomes of an image depends on its file and the plan of its position: neither on the number of processes nor
    on what was read before it.

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
        self._reading: Reading | None = None
        self._planned: deque[tuple[Tensor, Tensor | None]] = deque()

    def __len__(self) -> int:
        return len(self.labels)

    def start_epoch(self, order: Tensor, batches: Sequence[slice], plan: AugmentPlan | None) -> None:
        """Starts to read the epoch's batches ahead; a plan that was not used up is given up.

        Args:
            order: image indices, shape (positions,).
            batches: which positions make a batch, in the order in which `batch` will be asked for them.
            plan: with the seed of each position; None for images as they are in tests.
        """
        self.stop_epoch()
        seeds = None if plan is None else plan.seed
        host, read = order.cpu().numpy(), self._read_plan(plan)  # waits for the device, once an epoch
        self._planned.extend((order[where], None if seeds is None else seeds[where]) for where in batches)
        self._reading = Reading(self._pool, (self._request(host[where], read and read[where]) for where in batches))

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
        seeds = None if plan is None else plan.seed
        if self._reading is not None and self._planned and _is_same((index, seeds), self._planned[0]):
            self._planned.popleft()
            return self._normalised(self._take(self._reading, len(index)), plan)
        now = Reading(self._pool, [self._request(index.cpu().numpy(), self._read_plan(plan))], urgent=True)
        return self._normalised(self._take(now, len(index)), plan)

    def in_order(self, size: int, which: range) -> Iterator[Tensor]:
        """Those images as they are in tests, in batches of `size`, read ahead."""
        batches = [np.arange(start, min(start + size, which.stop)) for start in which[::size]]
        reading = Reading(self._pool, (self._request(index, None) for index in batches))
        try:
            for index in batches:
                yield self._normalised(self._take(reading, len(index)), None)
        finally:
            reading.close()

    def stop_epoch(self) -> None:
        """Gives the plan of the epoch up."""
        if self._reading is not None:
            self._reading.close()
        self._reading = None
        self._planned.clear()

    def close(self) -> None:
        """Ends the processes, which other parts may share."""
        self.stop_epoch()
        self._pool.close()

    def _read_plan(self, plan: AugmentPlan | None) -> ReadPlan | None:
        """What of a plan is done in the processes."""
        if plan is None:
            return None
        assert plan.seed is not None  # `harness.feed.parts.plan_for` makes such plans
        steps = slice(None) if self._read_colors else slice(0)
        code, value = plan.host_code[:, steps], plan.value[:, steps].cpu()
        return ReadPlan(plan.seed.numpy(), code.numpy(), value.numpy())

    def _request(self, index: npt.NDArray[np.int64], plan: ReadPlan | None) -> Request:
        root, names = self._images.root, self._images.names
        return Request([str(root / names[i]) for i in index], plan)

    def _take(self, reading: Reading, count: int) -> Tensor:
        """The next uint8 images, on the device: a quarter of the bytes of normalised ones."""
        reader = self._pool.reader
        shape = (count, reader.channels, reader.side, reader.side)
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        reading.take(pixels)
        return pixels.to(self.device, non_blocking=True)

    def _normalised(self, pixels: Tensor, plan: AugmentPlan | None) -> Tensor:
        if plan is not None:
            pixels = apply_plan(pixels, plan.without_operations() if self._read_colors else plan)
        images = pixels.to(torch.float32, memory_format=torch.channels_last)
        return images.sub_(self._mean).mul_(self._scale)


def _is_same(asked: tuple[Tensor, Tensor | None], planned: tuple[Tensor, Tensor | None]) -> bool:
    """Whether a batch is the planned one: the same piece of memory, which a device need not be waited for, or equal."""
    (index, seeds), (expected, expected_seeds) = asked, planned
    if (seeds is None) != (expected_seeds is None) or index.shape != expected.shape:
        return False
    if seeds is not None and expected_seeds is not None and not torch.equal(seeds, expected_seeds):
        return False
    return index.data_ptr() == expected.data_ptr() or torch.equal(index, expected)
