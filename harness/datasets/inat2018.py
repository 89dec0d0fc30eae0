"""inat2018: iNaturalist 2018, 437,513 photographs of 8,142 species, 1,000 to 2 a class; the user's copy.

The lists name images as the competition's archive unpacks: `train_val2018/<kingdom>/<class>/<file>`. Test is its
validation set, 3 images a class: the only one with public labels, on which everybody reports.
"""

from __future__ import annotations

from harness.datasets._lists import list_dataset


def _species(name: str) -> str:
    return "/".join(name.split("/")[1:3])


DATASET = list_dataset(
    name="inat2018",
    title="iNaturalist 2018",
    citation="Van Horn et al., The iNaturalist Species Classification and Detection Dataset, CVPR 2018",
    lists_folder="iNaturalist18",
    lists={"train": "iNaturalist18_train.txt", "test": "iNaturalist18_val.txt"},
    git_ids={
        "train": ("4accdb7584d2f0a5106c40a33ed6afa392189bcc",),
        "test": ("4c23900857fd0f5adcd4cc0dffef345039eeb05f",),
    },
    num_classes=8142,
    class_name=_species,
    largest_class=1000,
    smallest_class=2,
    mean=(0.466, 0.471, 0.380),
    std=(0.195, 0.194, 0.192),
)
