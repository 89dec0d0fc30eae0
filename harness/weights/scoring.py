"""Published weights through the evaluation of every run, as they are and with post-hoc methods on top."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.api import Method
from harness.base import config
from harness.base.errors import UserError
from harness.base.files import sha256_file
from harness.engine.evaluation import Evaluation
from harness.engine.job import StageJob
from harness.engine.network import Network
from harness.engine.pretrained import match
from harness.engine.ranks import ALONE
from harness.feed.parts import closing, make_parts
from harness.metrics.shots import DEFAULT_POLICY, group_sizes
from harness.reading.dataset import AnyImages, Dataset
from harness.reading.profiles import exponential_class_counts
from harness.records.arrays import Classes
from harness.records.evaluate import score_epoch
from harness.records.history import History
from harness.spec.registry import get_method
from harness.spec.stage_recipe import Augment, StageRecipe
from harness.splits import store
from harness.splits.splits import SCHEMA as SPLIT_SCHEMA
from harness.splits.splits import Split, ordered, take
from harness.weights.catalogue import Normalisation, Weights, catalogue
from harness.weights.record import SCHEMA, Result, WeightsRecord

UNTRAINED = StageRecipe(epochs=0, batch_size=1, lr=0.0, weight_decay=0.0)


class AsPublished(Method):
    """Nothing on top: the weights' own predictions."""

    name = "as_published"
    stages = ("train", "finetune")

    def continues_head(self) -> bool:
        """The head is used as it is."""
        return True


def score(
    name: str, weights: Weights, path: Path, device: torch.device
) -> tuple[WeightsRecord, Classes, list[Classes]]:
    """Scores a file of weights on the test images of its data set.

    Returns:
        The record, the test images' classes (N,), and the predicted classes (N,) of each of its results.

    Raises:
        UserError: not weights of this network, data missing, or a normalisation that does not fit the images.
    """
    dataset = store.get_dataset(weights.dataset)
    state = match(path, weights.backbone, dataset.image_shape, dataset.num_classes)
    if not store.is_here(dataset):
        store.fetch(dataset, store.data_root())
    split, images = _test_part(dataset, weights)
    bias = "head.bias" in state
    start = state if bias else state | {"head.bias": torch.zeros(dataset.num_classes)}  # adds nothing
    results, predictions = _results(split, images, weights, start, device)
    record = WeightsRecord(
        schema=SCHEMA,
        name=name,
        weights=dataclasses.replace(weights, imbalance_factor=split.imbalance_factor),
        source=catalogue().source(weights),
        file_sha256=sha256_file(path),
        head_bias=bias,
        class_counts=split.class_counts,
        test_images=sum(split.test.class_counts),
        test_sha256=split.test.sha256,
        mean=split.mean,
        std=split.std,
        shot_policy=DEFAULT_POLICY,
        groups=group_sizes(split.class_counts),
        results=results,
    )
    return record, split.test.targets(), predictions


def _test_part(dataset: Dataset, weights: Weights) -> tuple[Split, dict[str, AnyImages]]:
    """What the evaluation must know of the images, and the test images in the order of every split.

    It is no split: of the training part only the class counts are known.
    """
    parts = store.load(store.find(dataset))
    nothing = take(parts["test"], [])
    val, _ = ordered(nothing, dataset.num_classes)
    test, order = ordered(parts["test"], dataset.num_classes)
    counts, norm = _class_counts(dataset, weights, parts["train"]), _normalisation(dataset, weights)
    split = Split(
        schema=SPLIT_SCHEMA, id="", dataset=dataset.name, profile="exponential",
        imbalance_factor=max(counts) / min(counts) if dataset.given else weights.imbalance_factor,
        subset_rule="", split_seed=0, class_names=list(dataset.class_names), image_shape=list(dataset.image_shape),
        mean=norm.mean, std=norm.std, class_counts=counts, train=[["not known"] * count for count in counts],
        val=val, test=test,
    )  # fmt: skip
    return split, {"val": nothing, "test": take(parts["test"], order)}


def _class_counts(dataset: Dataset, weights: Weights, train: AnyImages) -> list[int]:
    if not dataset.given:
        return exponential_class_counts(dataset.train_class_size, dataset.num_classes, weights.imbalance_factor)
    if weights.imbalance_factor != 1:
        raise UserError(
            f"imbalance factor {weights.imbalance_factor:g}: '{dataset.name}' is long-tailed as it is; leave it out"
        )
    return [int(count) for count in np.bincount(train.labels, minlength=dataset.num_classes)]


def _normalisation(dataset: Dataset, weights: Weights) -> Normalisation:
    if not weights.normalisation:
        return Normalisation(list(dataset.mean), list(dataset.std))
    found = catalogue().normalisations[weights.normalisation]
    if len(found.mean) != dataset.image_shape[2]:
        raise UserError(
            f"normalisation '{weights.normalisation}' has {len(found.mean)} channels, images of '{dataset.name}' have "
            f"{dataset.image_shape[2]}; leave it out for the data set's own"
        )
    return found


def _results(
    split: Split, images: Mapping[str, AnyImages], weights: Weights, start: dict[str, Tensor], device: torch.device
) -> tuple[list[Result], list[Classes]]:
    methods: list[tuple[str, type[Method], dict[str, Any]]] = [(weights.method, AsPublished, {})]
    methods += [(name, get_method(name), params) for name, params in catalogue().post_hoc.items()]
    features: dict[tuple[str, bool], list[Tensor]] = {}  # computed once for all methods
    data = make_parts(images, split, device, Augment(), UNTRAINED.batch_size)
    results, predictions = [], []
    with closing(data):
        for name, method, values in methods:
            params = config.build(method.Params, values, f"params of '{name}'")
            job = StageJob("finetune", method, params, UNTRAINED, weights.backbone, "float32", 0, "", start)
            network, history = Network(job, split, data, device, ALONE), History()
            network.kept_features = features
            Evaluation(job, split, data, network, ALONE).add_to(history, 0)
            predicted, epoch, ece = history.test[0], history.epochs[0], history.ece[0]
            scores = score_epoch(predicted, split.test.targets(), split.class_counts, epoch=epoch, ece=ece)
            results.append(Result(name, values, scores))
            predictions.append(predicted)
    return results, predictions
