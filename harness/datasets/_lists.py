"""What ImageNet-LT, Places-LT and iNaturalist 2018 share: the user's images, and official lists known by their ids.

The images are never downloaded and never decoded into memory: they lie in (or are linked into) the data set's folder
in the data root, under the names that the lists give them. `ltbench verify` says which ones are missing or damaged.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.reading.dataset import Dataset, ImageFiles
from harness.reading.lists import read_list

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# A public repository that has the official lists of all three; the commit fixes what is downloaded.
SITE = (
    "https://raw.githubusercontent.com/facebookresearch/classifier-balancing/"
    "22370c64141cc662f62ead89447c838c4a7977b5/data"
)


def list_dataset(
    *,
    name: str,
    title: str,
    citation: str,
    lists_folder: str,
    lists: dict[str, str],
    git_ids: dict[str, tuple[str, ...]],
    num_classes: int,
    class_name: Callable[[str], str],
    identity: Callable[[str], str] | None = None,
    largest_class: int,
    smallest_class: int,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Dataset:
    """A data set of the user's images and official lists; its classes get their names from the training list.

    Args:
        lists_folder: of the lists in the repository.
        lists: part -> file name.
        git_ids: part -> git blob ids of the variants of its list that are known.
        identity: how splits name an image, from its name in the list; default by that name.
    """

    def decode(folder: Path) -> dict[str, ImageFiles]:
        return {part: read_list(folder / file, num_classes, identity) for part, file in lists.items()}

    return Dataset(
        name=name,
        title=title,
        citation=citation,
        class_names=tuple(str(c) for c in range(num_classes)),
        image_shape=(224, 224, 3),
        mean=mean,
        std=std,
        train_class_size=largest_class,
        default_imbalance_factor=largest_class / smallest_class,
        files={file: " ".join(f"git:{git_id}" for git_id in git_ids[part]) for part, file in lists.items()},
        urls={file: f"{SITE}/{lists_folder}/{file}" for file in lists.values()},
        source=None,
        decode=decode,
        given=True,
        profiled=False,
        class_name=class_name,
        image_files=True,
    )
