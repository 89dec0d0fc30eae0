"""places-lt: Places-LT, 62,500 photographs of 365 places, 4,980 to 5 a class; the user's copy of Places365.

Its list exists in two variants with the same images in the same order: `train/<class>/<file>` and
`val/<class>/<file>`, and the 256-pixel one with the paths of that download (`data_256/<letter>/<class>/<file>`,
`val_256/<file>`). Both give the same split. Test is the 36,500 validation images of Places365. The benchmark's own
validation part (20 images a class) is not read: our sources pin no hash of its list, and what cannot be checked is not
used.
"""

from __future__ import annotations

from harness.datasets._lists import list_dataset


def official_name(name: str) -> str:
    """An image's name whichever list it stands in: `train/<class>/<file>` or `val/<file>`."""
    folders, file = name.split("/")[:-1], name.split("/")[-1]
    if folders and folders[0].startswith("val"):
        return f"val/{file}"
    if folders and folders[0] == "data_256":  # a/apartment_building/outdoor -> apartment_building-outdoor
        return f"train/{'-'.join(folders[2:])}/{file}"
    return name


def _place(name: str) -> str:
    return official_name(name).split("/")[1]


DATASET = list_dataset(
    name="places-lt",
    title="Places-LT",
    citation="Liu et al., Large-Scale Long-Tailed Recognition in an Open World, CVPR 2019",
    lists_folder="Places_LT",
    lists={"train": "Places_LT_train.txt", "test": "Places_LT_test.txt"},
    git_ids={
        "train": ("6392252f8ae867bc8a5e841cc1b29e5b8ef4b636", "1d608b558c25c271da75c06f1e5e3625a4ebcb79"),
        "test": ("e732e58b8aa718a2c1c11933375f5710652c2b93", "d43400ac9bc2275baa058456da40b20abb50b108"),
    },
    num_classes=365,
    identity=official_name,
    class_name=_place,
    largest_class=4980,
    smallest_class=5,
)
