"""The loop that people write: what the harness is measured against, and must agree with.

torchvision transforms on PIL images, a DataLoader, eager float32, one model, `loss.item()` in each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any, cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

from harness.api import Classifier
from harness.reading.dataset import AnyImages, Images
from harness.spec.stage_recipe import Augment, StageRecipe
from harness.splits.splits import Split


class PilImages(Dataset[tuple[Tensor, int]]):
    """RGB images as torchvision's own data sets give them: an array, a PIL image, a transformed tensor."""

    def __init__(self, images: Images, transform: Callable[[Image.Image], Tensor]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.transform(Image.fromarray(self.images.pixels[index]))
        return image, int(self.images.labels[index])


def plain_transform(split: Split, augment: Augment) -> Callable[[Image.Image], Tensor]:
    """PIL image -> normalised float32 tensor (channels, height, width)."""
    steps: list[Any] = []
    if augment.resized_crop:
        steps.append(transforms.RandomResizedCrop(split.image_shape[:2]))
    if augment.crop_padding:
        steps.append(transforms.RandomCrop(split.image_shape[:2], padding=augment.crop_padding))
    if augment.flip:
        steps.append(transforms.RandomHorizontalFlip())
    if augment.color_jitter:
        steps.append(transforms.ColorJitter(augment.color_jitter, augment.color_jitter, augment.color_jitter))
    steps += [transforms.ToTensor(), transforms.Normalize(split.mean, split.std)]
    chain: Callable[[Image.Image], Tensor] = transforms.Compose(steps)
    return chain


def plain_dataset(images: AnyImages, transform: Callable[[Image.Image], Tensor]) -> Dataset[Any]:
    """The images as torchvision gives them; those that stay files as its `ImageFolder` reads them."""
    if isinstance(images, Images):
        return PilImages(images, transform)
    folder = ImageFolder(images.root, transform)
    folder.samples = [
        (str(images.root / name), label) for name, label in zip(images.names, images.labels.tolist(), strict=True)
    ]
    return cast("Dataset[Any]", folder)


def plain_loader(
    images: AnyImages,
    split: Split,
    recipe: StageRecipe,
    device: torch.device,
    workers: int = 0,
    sampler: Sampler[int] | None = None,
) -> DataLoader[tuple[Tensor, int]]:
    """Images (B, channels, height, width) and classes (B,) on the CPU, shuffled if no sampler orders them."""
    return DataLoader(
        plain_dataset(images, plain_transform(split, recipe.augment)),
        batch_size=recipe.batch_size,
        shuffle=sampler is None,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        drop_last=recipe.drop_last,
    )


class PlainLoop:
    """Trains a classifier with cross-entropy, SGD and a cosine schedule.

    Args:
        frozen: train the head only, on a backbone in eval mode.
    """

    def __init__(
        self,
        model: Classifier,
        loader: DataLoader[tuple[Tensor, int]],
        recipe: StageRecipe,
        device: torch.device,
        *,
        frozen: bool = False,
    ) -> None:
        self.model, self.loader, self.device, self.frozen = model.to(device), loader, device, frozen
        self.model.backbone.requires_grad_(not frozen)
        self.optimizer = torch.optim.SGD(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
        )
        assert isinstance(loader, Sized)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, recipe.epochs * len(loader))

    def epoch(self) -> list[float]:
        """Trains one epoch; returns the loss of each step."""
        self.model.train()
        if self.frozen:
            self.model.backbone.eval()
        losses = []
        for images, target in self.loader:
            images, target = images.to(self.device, non_blocking=True), target.to(self.device, non_blocking=True)
            loss = F.cross_entropy(self.model(images), target)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            losses.append(loss.item())
        return losses
