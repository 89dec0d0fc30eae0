"""The conformance suite: what a method must do before it may cost anyone a GPU hour.

These are pytest tests over every registered method. `ltbench check-method NAME` runs them for one; the project's own
tests run them for all. Each test's docstring says what is asked, so that a failure reads as advice.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.api import Batch, Classifier, Method, Stage, StepContext, Task, View
from harness.base.errors import UserError
from harness.base.progress import Reporter
from harness.engine.backbones import create_backbone
from harness.engine.job import StageJob
from harness.engine.loop import StageRun
from harness.reading.dataset import Images
from harness.records.history import CLASS, read_history
from harness.reporting.claims import own_claims
from harness.spec.entries import parse_entry
from harness.spec.recipe_layers import read_method_file, variants
from harness.spec.recipes import resolve
from harness.spec.registry import available_methods, get_method, get_plugin
from harness.spec.stage_recipe import Augment, StageRecipe
from harness.spec.suites import entries_for, read_suites
from harness.splits.splits import Part, Split
from tests.conformance import tape


def imports(name: str) -> bool:
    """Whether the method can be imported; `test_imports` says why not."""
    try:
        get_method(name)
    except UserError:
        return False
    return True


def own_stages(name: str) -> list[Stage]:
    """The stages that the method itself runs, with its default params."""
    method = get_method(name)
    params = method.Params()
    stages = method.stages_of(params)
    return [stage for stage in stages if stage == "finetune" or not method.first_stage_of(params)]


ASKED = os.environ.get("LTBENCH_CHECK_METHOD")
METHODS = ASKED.split(",") if ASKED else available_methods()
SOUND = [name for name in METHODS if imports(name)]
STAGES = [(name, stage) for name in SOUND for stage in own_stages(name)]
FEATURES = 16
IMAGE = (8, 8, 3)


# ---- a step of a method, as small as its shape allows ----------------------------------------------------------------
#
# A method that leaves the network alone is tested on features. One that builds its own gets images and a small residual
# network; each gets as many batches as it asks for.


def builds(method: Method) -> bool:
    """Whether the method makes its own network."""
    return type(method).build is not Method.build


def has_loss(method: Method) -> bool:
    """Whether `loss` is what trains it, and not `step_loss` alone."""
    return type(method).loss is not Method.loss or type(method).step_loss is Method.step_loss


def make(name: str, counts: list[int]) -> Method:
    method = get_method(name)
    width = FEATURES if method.build is Method.build else create_backbone("resnet8_cifar", IMAGE)[1]
    return method(Task(len(counts), width, torch.tensor(counts)), method.Params())


def inputs(method: Method, count: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    """Features, or images where the method makes its own network."""
    shape = (count, IMAGE[2], *IMAGE[:2]) if builds(method) else (count, FEATURES)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


class Whole:
    """The network in a step (`StepModel`)."""

    def __init__(self, step: StepContext) -> None:
        self.step = step

    def __call__(self, images: Tensor) -> Tensor:
        """Logits."""
        return self.embed(images)[1]

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits."""
        features = self.extract(images)
        return features, self.step.model.head(features)

    def extract(self, images: Tensor) -> Tensor:
        """Features."""
        features: Tensor = self.step.model.backbone(images)
        return features

    def average(self, values: Tensor) -> Tensor:
        """There is one process."""
        return values


def prepared(method: Method, stage: Any, dtype: torch.dtype = torch.float64) -> StepContext:
    """A step of the method at the start of a stage, with its model in place."""
    torch.default_generator.manual_seed(0)  # the same network each time; `torch.manual_seed` asks for a stack trace
    backbone = create_backbone("resnet8_cifar", IMAGE)[0] if builds(method) else torch.nn.Identity()
    model = method.build(backbone, stage).to(dtype)
    views_of(method, stage)  # a method may keep the labels that it gets there
    method.on_stage_start(model, stage)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return StepContext(stage, 0, 2, 0, 0.1, model, optimizer, torch.Generator().manual_seed(0))


def views_of(method: Method, stage: Any) -> tuple[View, ...]:
    return method.views(np.repeat(np.arange(method.task.num_classes), method.task.class_counts.numpy()), stage)


def loss_in(method: Method, step: StepContext, given: Tensor, target: Tensor) -> Tensor:
    """The loss of a batch of these inputs; every view of a step gets them, but for balanced ones."""
    index = method.choose(torch.arange(len(target)) % int(method.task.class_counts.sum()), step)
    step.batch = Batch(given, target, index)
    balanced = [view.balanced for view in views_of(method, step.stage)]
    views = tuple(balanced_batch(method, size, given.dtype) if size else step.batch for size in balanced)
    values = method.step_loss(Whole(step), views, step)
    return values.mean() if values.ndim else values


def balanced_batch(method: Method, size: int, dtype: torch.dtype) -> Batch:
    index = torch.arange(size)
    return Batch(inputs(method, size, dtype, seed=3), index % method.task.num_classes, index)


def loss_of(method: Method, given: Tensor, target: Tensor, stage: Any) -> tuple[Tensor, Classifier]:
    step = prepared(method, stage, given.dtype)
    return loss_in(method, step, given, target), step.model


def at_logits(method: Method, stage: Any, target: Tensor, seed: int) -> tuple[StepContext, Tensor]:
    """A step and logits between -1 and 1, of the shape that the network gives them."""
    step = prepared(method, stage)
    given = inputs(method, len(target), seed=seed)
    step.features, like = Whole(step).embed(given)
    step.batch = Batch(given, target, torch.arange(len(target)) % int(method.task.class_counts.sum()))
    generator = torch.Generator().manual_seed(seed)
    return step, torch.rand(like.shape, dtype=torch.float64, generator=generator) * 2 - 1


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test is about a method, or about one of its own stages; all but the import needs one that imports."""
    if metafunc.function.__module__ != __name__:  # of a module that takes these tests over, and has others
        return
    if "stage" in metafunc.fixturenames:
        metafunc.parametrize(("name", "stage"), STAGES)
    elif "name" in metafunc.fixturenames:
        metafunc.parametrize("name", METHODS if metafunc.function is test_imports else SOUND)


def test_imports(name: str) -> None:
    """`method.py` imports and holds a subclass of Method with the folder's name."""
    get_method(name)


def test_folder_is_complete(name: str) -> None:
    """The folder holds `method.py` and `recipes.yaml`; a `claims.yaml`, where there is one, is sound."""
    plugin = get_plugin(name)
    assert {path.name for path in plugin.folder.glob("*.*")} >= {"method.py", "recipes.yaml"}
    own_claims(name, plugin.folder)
    assert len((plugin.folder / "method.py").read_text().splitlines()) <= 160, "a method reads like its paper"


def only_with_common_recipe(name: str) -> None:
    """Skips a method that has recipes for some data sets alone, as where it needs pretrained weights."""
    if read_method_file(get_plugin(name)).listed_only:
        pytest.skip(f"{name} takes no shared recipe")


def test_every_recipe_of_every_variant_resolves(name: str) -> None:
    only_with_common_recipe(name)
    for variant in ["", *variants(get_plugin(name), "common", "mnist5k")]:
        entry = parse_entry(f"{name}{'-' + variant if variant else ''}@common")
        cell = resolve(entry, "mnist5k")
        assert cell.recipe.backbone == "resnet8_cifar"
        assert ("finetune" in cell.stages) == (cell.recipe.finetune is not None)


def test_is_in_the_suite_of_all_methods(name: str) -> None:
    only_with_common_recipe(name)
    assert f"{name}@common" in [str(entry) for entry in entries_for(read_suites()["mnist5k-all"], "mnist5k")]


@pytest.mark.parametrize("classes", [2, 10, 100, 1000])
def test_loss_and_gradients_are_finite(name: str, stage: Any, classes: int) -> None:
    """Large features, a batch that misses most classes, a class of one image."""
    counts = [max(1, int(500 * 0.01 ** (c / (classes - 1)))) for c in range(classes)]
    counts[-1] = 1
    method = make(name, counts)
    given = (100 * inputs(method, 8, torch.float32)).requires_grad_()
    loss, model = loss_of(method, given, torch.tensor([0, 0, 1, 1, classes - 1, 0, 1, 0]), stage)
    loss.backward()
    assert loss.ndim == 0
    assert torch.isfinite(loss)
    for parameter in model.parameters():
        assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all())
    assert given.grad is not None
    assert bool(torch.isfinite(given.grad).all())


def test_gradient_is_the_derivative(name: str, stage: Any) -> None:
    """By finite differences in float64, through head and loss; of a network of its own in a random direction."""
    target = torch.tensor([0, 1, 2, 3, 0, 0])
    method = make(name, [50, 20, 5, 2])
    if method.detached and stage == method.stages[-1]:
        pytest.skip(method.detached)

    def loss(values: Tensor) -> Tensor:
        return loss_of(method, values, target, stage)[0]

    given = inputs(method, 6, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(loss, given, fast_mode=builds(method) or not has_loss(method))


def test_uniform_class_counts_tell_no_classes_apart(name: str, stage: Any) -> None:
    """With equal counts the loss is a softmax loss without favourites: renaming the classes does not change it.

    The loss of a method with a network or a step of its own may look at other logits too (a teacher's, say), which
    cannot be renamed here; its inference is asked all the same.
    """
    method = make(name, [20] * 5)
    target, renamed = torch.tensor([0, 1, 2, 3, 4, 0, 1]), torch.tensor([3, 0, 4, 1, 2])
    step, logits = at_logits(method, stage, target, seed=4)
    torch.testing.assert_close(
        method.inference(logits, stage)[:, renamed.argsort()],
        method.inference(logits[..., renamed.argsort()], stage),
    )
    if builds(method) or not has_loss(method):
        return
    step.generator.manual_seed(0)
    loss = method.loss(logits, target, step)
    step.generator.manual_seed(0)
    again = method.loss(logits[:, renamed.argsort()], renamed[target], step)
    torch.testing.assert_close(loss, again, rtol=1e-12, atol=0)


@pytest.mark.parametrize("epoch", [0, 99])
def test_loss_of_a_batch_is_that_of_its_shares(name: str, stage: Any, epoch: int) -> None:
    """By the number of their images: so processes can share a batch. Class weights want `step.relative_weight`.

    A method whose loss is no mean over images says why in `whole_batch`.
    """
    method = make(name, [max(1, 60 // (c + 1)) for c in range(16)])
    if method.whole_batch:
        pytest.skip(method.whole_batch)
    target = torch.tensor([0, 15, 0, 3, 1, 0, 8])
    step, logits = at_logits(method, stage, target, seed=5)
    step.model.eval()  # BatchNorm looks across a batch, which is the network's doing
    step.epoch, step.epochs = epoch, 100
    batch, features = step.batch, step.features
    assert batch is not None
    assert features is not None

    def loss(share: slice) -> Tensor:
        step.batch = Batch(batch.images[share], batch.target[share], batch.index[share])
        step.classes = None if share == slice(None) else target
        if not has_loss(method):
            return loss_in(method, step, batch.images[share], target[share])
        step.features = features[share]
        return method.loss(logits[share], target[share], step)

    step.generator.manual_seed(0)
    whole = loss(slice(None))
    step.generator.manual_seed(0)  # noise of 16 classes a time is drawn one image after the other
    shares = [slice(0, 2), slice(2, 3), slice(3, 7)]
    losses = [loss(share) * len(target[share]) for share in shares]
    tolerance = 1e-9 if builds(method) else 1e-12
    torch.testing.assert_close(torch.stack(losses).sum() / len(target), whole, rtol=tolerance, atol=0)


def test_loss_compiles_as_one_graph(name: str, stage: Any) -> None:
    """`torch.compile` takes it without a graph break, with the same value; or `not_compiled` says why not."""
    method = make(name, [50, 20, 5, 2])
    if method.not_compiled:
        pytest.skip(method.not_compiled)
    if not has_loss(method):
        pytest.skip("it has a step of its own, and `loss` is not what trains it")
    target = torch.tensor([0, 1, 2, 3, 0, 0])
    step, logits = at_logits(method, stage, target, seed=6)
    loss = method.loss(logits, target, step)  # first: what a method computes once is computed here
    torch.compiler.reset()

    def plain(z: Tensor, y: Tensor) -> Tensor:
        return method.loss(z, y, step)

    compiled: Any = torch.compile(plain, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits, target), loss, rtol=1e-12, atol=0)


def test_loss_keeps_the_dtype_of_the_logits(name: str, stage: Any) -> None:
    for dtype in (torch.float32, torch.float64):
        method = make(name, [9, 4, 1])
        assert loss_of(method, inputs(method, 4, dtype), torch.tensor([0, 1, 2, 0]), stage)[0].dtype == dtype


def test_sampler_gives_one_epoch_of_valid_indices(name: str, stage: Any) -> None:
    labels = np.repeat(np.arange(4), [30, 9, 3, 1])
    first, *others = make(name, [30, 9, 3, 1]).views(labels, stage)
    assert first.sampler is not None
    for view in (first, *others):
        if view.sampler is not None:
            order = view.sampler.order(np.random.default_rng(0))
            assert order.shape == labels.shape
            assert order.min() >= 0
            assert order.max() < len(labels)


@pytest.fixture(scope="session")
def small_split() -> tuple[Split, dict[str, Images]]:
    """Four classes of 40, 18, 8 and 4 noisy 8x8 images: enough for every hook to run in a second."""
    rng = np.random.default_rng(0)
    patterns, parts = rng.integers(0, 256, (4, 8, 8, 3)), {}
    for part, counts in (("train", [40, 18, 8, 4]), ("val", [3] * 4), ("test", [10] * 4)):
        labels = np.repeat(np.arange(4), counts)
        noisy = patterns[labels] + rng.normal(0, 40, (len(labels), 8, 8, 3))
        parts[part] = Images(np.clip(noisy, 0, 255).astype(np.uint8), labels)
    split = Split(
        schema=1,
        id="small-lt-if10",
        dataset="small",
        profile="exponential",
        imbalance_factor=10,
        subset_rule="hash:0",
        split_seed=0,
        class_names=["a", "b", "c", "d"],
        image_shape=[8, 8, 3],
        mean=[0.5] * 3,
        std=[0.25] * 3,
        class_counts=[40, 18, 8, 4],
        train=[[""] * count for count in (40, 18, 8, 4)],
        val=Part([3] * 4, ""),
        test=Part([10] * 4, ""),
    )
    return split, parts


def _run(name: str, folder: Path, small: tuple[Split, dict[str, Images]], precision: str = "float32") -> StageRun:
    method = get_method(name)
    recipe = StageRecipe(epochs=2, batch_size=16, lr=0.05, weight_decay=5e-4, augment=Augment(1, True))
    weights: dict[str, Tensor] = {}
    for stage in method.stages:
        plain = method if stage in own_stages(name) else get_method(method.first_stage_of(method.Params()))
        job = StageJob(stage, plain, plain.Params(), recipe, "resnet8_cifar", precision, 0, f"{name}-{stage}", weights)
        run = StageRun(job, *small, torch.device("cpu"), folder / stage)
        run.run(Reporter())
        weights = run.model.state_dict()
    return run


@pytest.fixture(scope="session")
def whole_run(
    small_split: tuple[Split, dict[str, Images]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[StageRun, Path]]:
    """A method's last stage, and the folder with what its stages left; several tests look at the same one."""

    @functools.cache
    def run(name: str) -> tuple[StageRun, Path]:
        folder = tmp_path_factory.mktemp(name)
        return _run(name, folder, small_split), folder

    return run


def test_same_seed_same_bits_also_after_a_kill_in_the_middle_of_an_epoch(
    name: str,
    small_split: tuple[Split, dict[str, Images]],
    whole_run: Callable[[str], tuple[StageRun, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, whole = whole_run(name)
    monkeypatch.setenv("LTBENCH_CHECKPOINT_SECONDS", "0")
    step, count = StageRun._train_step, 0

    def dying(self: StageRun, *arguments: Any) -> None:
        nonlocal count
        count += 1
        if count in (3, 8, 14):  # in the middle of epochs of five steps, in both stages
            raise KeyboardInterrupt
        step(self, *arguments)

    monkeypatch.setattr(StageRun, "_train_step", dying)
    for _ in range(5):
        try:
            _run(name, tmp_path, small_split)
            break
        except KeyboardInterrupt:
            continue
    for stage in get_method(name).stages:
        for file in ("weights.safetensors", "predictions.npz"):
            assert (whole / stage / file).read_bytes() == (tmp_path / stage / file).read_bytes()


def test_steps_from_a_graph_do_what_eager_steps_do(
    name: str, stage: Any, small_split: tuple[Split, dict[str, Images]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU a step is recorded once and replayed, so Python runs once: what steps change lies in tensors and is
    changed in place, also in `on_epoch_end`. A method that cannot do so has `no_graph` say why."""
    recipe = StageRecipe(epochs=5, batch_size=9, lr=0.05, weight_decay=5e-4, augment=Augment(1, True))
    method = get_method(name)
    job = StageJob(stage, method, method.Params(), recipe, "resnet8_cifar", "float32", 0, f"{name}-{stage}")

    def trained(job: StageJob, mode: str) -> StageRun:
        return tape.train(job, small_split, tmp_path, monkeypatch, mode, (0, 1, 4))

    if method.no_graph:
        run = trained(tape.without_opt_out(job), "auto")
        assert not tape.holds_in_a_graph(run), f"it need not say no_graph: {method.no_graph}"
        return
    eager, graphed = (trained(job, mode) for mode in ("off", "auto"))
    tape.assert_same(graphed, eager)
    assert tape.holds_in_a_graph(graphed), graphed.costs.fell_back


def test_class_quantities_are_one_number_a_class(name: str, whole_run: Callable[[str], tuple[StageRun, Path]]) -> None:
    """The report draws them against class frequency."""
    run, folder = whole_run(name)
    found = read_history(folder / get_method(name).stages[-1] / "predictions.npz")
    quantities = {key: values for key, values in found.items() if key.startswith(CLASS)}
    assert len(quantities) == len(run.method.class_quantities(run.model))
    assert all(values.shape == (4,) and np.isfinite(values).all() for values in quantities.values())


def test_runs_in_bfloat16(name: str, small_split: tuple[Split, dict[str, Images]], tmp_path: Path) -> None:
    """The backbone may run in half precision; head and loss get float32."""
    run = _run(name, tmp_path, small_split, precision="bfloat16")
    assert np.isfinite(run.history.loss).all()


def test_inference_logits_have_a_column_for_each_class(name: str) -> None:
    method = make(name, [9, 4, 1])
    stage = method.stages_of(method.params)[-1]
    model = prepared(method, stage, torch.float32).model
    logits = method.inference(model(inputs(method, 5, torch.float32)), stage)
    assert logits.shape == (5, 3)


def test_params_are_frozen_plain_values(name: str) -> None:
    """They go into hashes and records."""
    params = get_method(name).Params()
    assert dataclasses.is_dataclass(params)
    assert all(isinstance(v, (bool, int, float, str, tuple, type(None))) for v in dataclasses.asdict(params).values())
