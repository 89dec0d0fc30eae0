"""imagenet-lt: ImageNet-LT, 115,846 photographs of 1,000 classes, 1,280 to 5 a class; the user's copy of ImageNet.

The lists name images as ImageNet unpacks: `train/<wnid>/<file>`, and `val/<wnid>/<file>` with the validation images
sorted into class folders. Test is the whole ILSVRC-2012 validation set; validation is 20 training images a class that
the long-tailed list does not have.
"""

from __future__ import annotations

from harness.datasets._lists import list_dataset


def _wnid(name: str) -> str:
    return name.split("/")[1]


DATASET = list_dataset(
    name="imagenet-lt",
    title="ImageNet-LT",
    citation="Liu et al., Large-Scale Long-Tailed Recognition in an Open World, CVPR 2019",
    lists_folder="ImageNet_LT",
    lists={"train": "ImageNet_LT_train.txt", "val": "ImageNet_LT_val.txt", "test": "ImageNet_LT_test.txt"},
    git_ids={
        "train": ("a063f095fcd475db4cf8b0658c4b73955535bbf9",),
        "val": ("3ed3188b2f44829ce2dec1cc27040d8d40984088",),
        "test": ("76a2fb9749d6cd29e765cc4f8c270f2504131e2f",),
    },
    num_classes=1000,
    class_name=_wnid,
    largest_class=1280,
    smallest_class=5,
)
