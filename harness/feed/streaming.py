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
from harness.feed.resident import ResidentPart
from harness.reading.dataset import ImageFiles, Images
from harness.spec.stage_recipe import Augment
from harness.splits.splits import Split

View = tuple[Tensor, AugmentPlan | None]  # an epoch's images, and what is done to them; None: as they are in tests

FILES_AT_ONCE = {"cpu": 32, "cuda": 256}  # of an evaluation pass: such images are large


class StreamingPart:
    """One part of a split whose images are read from files when they are needed.

    Crop and flip are drawn where they are read (`seeded`). An image depends only on its file and the plan of its
    position, not on the number of processes or on what was read before it.

    Args:
        images: the part's files and classes.
        split: whose mean and standard deviation normalise them.
        pool: the processes that read them; parts of one run share it.
    """

    seeded = True

    def __init__(self, images: ImageFiles, split: Split, device: torch.device, pool: ImagePool) -> None:
        self.device = device
        self.labels = torch.from_numpy(images.labels).to(device)
        self.host_labels = images.labels
        self._images, self._pool, self._read_colors = images, pool, device.type == "cpu"
        # One value for each value of an image: CPUs are slow at repeating a short row.
        self._mean = (255 * torch.tensor(split.mean, device=device)).repeat(pool.reader.side**2)
        self._scale = (1 / (255 * torch.tensor(split.std, device=device))).repeat(pool.reader.side**2)
        self._reading = Reading(pool, ())
        self._planned: deque[tuple[Tensor, Tensor | None]] = deque()  # images and seeds of batches that it still holds

    def __len__(self) -> int:
        return len(self.labels)

    def start_epoch(self, plan: EpochPlan, batches: Sequence[slice], *others: View) -> None:
        """Starts to read the epoch's batches ahead; what is left of an earlier plan is given up.

        Args:
            plan: with the seed of each position.
            batches: which positions make a batch, in the order in which `batch` will be asked for them.
            others: of further views; after each batch, `batch` will be asked for theirs.
        """
        views = [(plan.order, plan.augment), *others]
        self._planned = deque(
            (order[where], None if augment is None or augment.seed is None else augment.seed[where])
            for where in batches
            for order, augment in views
        )
        on_host = [(order.cpu().numpy(), augment) for order, augment in views]  # waits for the device, once an epoch
        drawn = ((order[where], augment and augment[where]) for where in batches for order, augment in on_host)
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
        return self._made(self._take(reading, len(index)), plan)

    def _is_next(self, index: Tensor, plan: AugmentPlan | None) -> bool:
        """Whether a batch is the planned one. Equal addresses are looked at first: a device need not be waited for."""
        if not self._planned:
            return False
        expected, seed = self._planned[0]
        wanted = None if plan is None else plan.seed
        if wanted is None or seed is None:
            same = wanted is seed and index.shape == expected.shape
        else:
            same = torch.equal(wanted, seed)
        return same and (index.data_ptr() == expected.data_ptr() or torch.equal(index, expected))

    def in_order(self, size: int, which: range) -> Iterator[Tensor]:
        """Those images as they are in tests, read ahead, in batches of at most `size`."""
        size = min(size, FILES_AT_ONCE[self.device.type]) if self.seeded else size
        batches = [np.arange(start, min(start + size, which.stop)) for start in which[::size]]
        reading = Reading(self._pool, (self._request(index, None) for index in batches))
        for index in batches:
            yield self._made(self._take(reading, len(index)), None)

    def close(self) -> None:
        """Ends the processes, which other parts may share."""
        self._planned.clear()
        self._pool.close()

    def _request(self, index: npt.NDArray[np.int64], plan: AugmentPlan | None) -> Request:
        """Those images, and what of their plan is done in the processes."""
        places = [self._images.source(i) for i in index.tolist()]
        upright = self._images.upright
        if plan is None:
            nothing = np.empty((len(places), 0), np.int64), np.empty((len(places), 0), np.float32)
            return Request(places, None, *nothing, upright)
        assert plan.seed is not None
        steps = slice(None) if self._read_colors else slice(0)
        code, value = plan.host_code[:, steps], plan.value[:, steps].cpu()
        return Request(places, plan.seed.numpy(), code.numpy(), value.numpy(), upright, plan.strong)

    def _take(self, reading: Reading, count: int) -> Tensor:
        """The next uint8 images, on the host, shape (count, side, side, channels)."""
        reader = self._pool.reader
        shape = (count, reader.side, reader.side, reader.channels)
        on_cpu = self.device.type == "cpu"
        pixels = _large(shape, np.uint8) if on_cpu else torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        reading.take(pixels)
        return pixels

    def _made(self, pixels: Tensor, plan: AugmentPlan | None) -> Tensor:
        """What `batch` gives of images on the host; they go to the device as a quarter of its bytes."""
        pixels = pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        if plan is not None:
            pixels = apply_plan(pixels, plan, operations=not self._read_colors)
        by_pixel = pixels.permute(0, 2, 3, 1)
        if self._read_colors:
            found = _large(by_pixel.shape, np.float32).copy_(by_pixel)
        else:
            found = by_pixel.to(torch.float32, memory_format=torch.contiguous_format)
        found.flatten(1).sub_(self._mean).mul_(self._scale)
        return found.permute(0, 3, 1, 2)


class StoredPart(StreamingPart):
    """As `ResidentPart`, bit for bit where they are read exactly, but its images are read from files.

    Args:
        augment: as `ResidentPart` takes it.
    """

    seeded = False

    def __init__(
        self, images: ImageFiles, split: Split, device: torch.device, pool: ImagePool, augment: Augment
    ) -> None:
        super().__init__(images, split, device, pool)
        self._split, self._augment = split, augment

    def _request(self, index: npt.NDArray[np.int64], plan: AugmentPlan | None) -> Request:
        return super()._request(index, None)

    def _made(self, pixels: Tensor, plan: AugmentPlan | None) -> Tensor:
        images = Images(pixels.numpy(), np.zeros(len(pixels), np.int64))
        batch = ResidentPart(images, self._split, self.device, self._augment)
        return batch.batch(torch.arange(len(pixels), device=self.device), plan)


def _large(shape: Sequence[int], dtype: type[np.generic]) -> Tensor:
    """Memory of the host for a batch: numpy asks for large pages, which makes new memory three times as quick."""
    return torch.from_numpy(np.empty(shape, dtype))
