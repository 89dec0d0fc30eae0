"""The network that a stage trains: how it is built and tuned, and the features and logits that it gives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.api import Batch, Classifier, Method, Task
from harness.base.errors import RunFailed, RunSkipped, UserError
from harness.engine.checkpoint import tensors_digest
from harness.engine.compiling import COMPILE, compiled
from harness.engine.device import TF32, arithmetic, replays, set_tf32, switched_on
from harness.engine.job import StageJob
from harness.engine.parallel import forward_pass, micro_batches, with_synchronised_batchnorm
from harness.engine.pretrained import start_backbone
from harness.engine.ranks import Ranks
from harness.engine.seeding import seed_for
from harness.engine.shared_features import SharedFeatures
from harness.engine.tuning import Average, by_layer, make_optimizer, recompute_activations
from harness.feed.parts import LoadedPart
from harness.feed.resident import ResidentPart
from harness.spec.stage_recipe import Augment
from harness.splits.splits import Split
from harness.toolbox.heads import initialise
from harness.toolbox.schedules import batch_sizes, learning_rate

EVAL_BATCH = {"cpu": 128, "cuda": 2000}  # a small batch stays in a processor's cache; a GPU wants a large one


class Network:
    """Backbone and head, with the method that made the head and the optimizer that tunes them.

    Weights depend on the seed and the stage only, so methods with one seed start from the same backbone.

    Attributes:
        frozen_backbone: whether only the head is tuned.
        fixed_features: whether the features of an image never change, so that they need computing only once.
        joint: the forward pass of training steps.
        batch: the one at work.
        kept_features: of whole parts under a backbone that never changes, by part and whether mirrored.
        shared: the features that other runs need too; None where that can't be.

    Raises:
        RunSkipped: the method cannot work on the split.
        UserError: the run cannot be spread as the job says.
    """

    def __init__(
        self, job: StageJob, split: Split, data: Mapping[str, LoadedPart], device: torch.device, ranks: Ranks
    ) -> None:
        self._job, self._split, self._data, self._device = job, split, data, device
        torch.manual_seed(seed_for(job.seed, "backbone"))
        backbone, feature_dim = self._build_backbone()
        self.method = self._build_method(feature_dim)
        torch.manual_seed(seed_for(job.seed, job.stage, "head"))
        self.model = self.method.build(backbone, job.stage)
        for name, part in self.model.named_children():
            if name != "backbone":
                initialise(part, job.recipe.head_init, split.num_classes)
        self._check_pretrained()
        self._load_first_stage()
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if job.spread.sync_bn:
            with_synchronised_batchnorm(self.model, device)
        self.method.on_stage_start(self.model, job.stage)
        self._compiled = compiled(self.model.backbone)
        self._bfloat16 = job.precision == "bfloat16"
        if device.type == "cuda":
            set_tf32(switched_on(TF32))  # an earlier run of this process may have ended without it
        self._build_optimizer()
        self._check_hooks()
        self._check_spread()
        self.joint = forward_pass(self.model, self.extract, self.frozen_backbone, ranks, device)
        self._ranks, self._weight = ranks, 1.0  # part of the running batch that is this rank's
        self.batch: Batch | None = None
        self._epoch = self._step = 0  # the running ones
        self.kept_features: dict[tuple[str, bool], list[Tensor]] = {}
        self._train_features: Tensor | None = None
        self.shared: SharedFeatures | None = None
        torch.manual_seed(seed_for(job.seed, job.stage, *ranks.noise("forward")))  # dropout and the like

    def _build_backbone(self) -> tuple[nn.Module, int]:
        recipe, shape = self._job.recipe, self._split.image_shape
        name, wanted = self._job.backbone, self._job.pretrained
        backbone, feature_dim = start_backbone(name, tuple(shape), wanted, recipe.drop_path)  # type: ignore[arg-type]
        if wanted:
            self._loaded = {key: value.clone() for key, value in backbone.named_parameters()}
        if recipe.gradient_checkpointing:
            recompute_activations(backbone, name)
        return backbone, feature_dim

    def _check_pretrained(self) -> None:
        """Refuses a method that makes parts of a pretrained network anew: its row would name weights that it lost."""
        if not self._job.pretrained:
            return
        loaded = list(self._loaded.values())
        for name, parameter in self.model.backbone.named_parameters():
            alike = [value for value in loaded if value.shape == parameter.shape]
            if parameter.ndim > 1 and not any(torch.equal(parameter, value) for value in alike):
                raise RunFailed(
                    f"pretrained: '{self.method.name}' makes '{name}' of its network anew, so it would not start from "
                    f"{self._job.pretrained.partition(' ')[0]}",
                    agreed=True,
                )

    def _build_method(self, feature_dim: int) -> Method:
        counts = torch.tensor(self._split.class_counts, device=self._device)
        method = self._job.method(Task(self._split.num_classes, feature_dim, counts), self._job.params)
        if reason := method.skip():
            raise RunSkipped(reason, agreed=True)
        return method

    def _load_first_stage(self) -> None:
        if self._job.start:
            wanted = "" if self.method.continues_head() else "backbone."
            kept = {name: value for name, value in self._job.start.items() if name.startswith(wanted)}
            fresh = self.model.state_dict()
            for name, value in kept.items():
                if name not in fresh or fresh[name].shape != value.shape:
                    found = tuple(fresh[name].shape) if name in fresh else "nothing"
                    raise RunFailed(
                        f"the first stage's '{name}' {tuple(value.shape)} has no place in the network that `build` of "
                        f"'{self.method.name}' makes for the second: it has {found} there",
                        agreed=True,
                    )
            self.model.load_state_dict(fresh | kept)

    def _build_optimizer(self) -> None:
        recipe = self._job.recipe
        groups = by_layer(self.method.param_groups(self.model, self._job.stage), self.model, recipe)
        self._lr_scales = [group.pop("lr_scale", 1.0) for group in groups]
        tuned = {parameter for group in groups for parameter in group["params"]}
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter in tuned)
        self.frozen_backbone = tuned <= set(self.model.head.parameters())
        self.fixed_features = self.frozen_backbone and recipe.frozen_bn == "eval"
        # Where steps are replayed, rates lie on the device: those of the groups, then the schedule's own.
        scales = torch.tensor([*self._lr_scales, 1.0], device=self._device)
        self._scales, self._rates = scales, scales.clone() if replays(self._device) else None
        self.rate: float | Tensor = recipe.lr
        self._tuned = [parameter for group in groups for parameter in group["params"]]  # in their order: norms add up
        self.optimizer = make_optimizer(groups, recipe, self._device)
        self.average_weights = Average(self.model, recipe.ema)
        # BatchNorm that is not tuned does not go on counting, unless the recipe says so.
        norms = [module for module in self.model.modules() if isinstance(module, _BatchNorm)]
        own = {norm: list(norm.parameters(recurse=False)) for norm in norms}
        still = recipe.frozen_bn == "eval"
        self._still = [norm for norm in norms if still and own[norm] and not tuned.intersection(own[norm])]

    @property
    def compiled(self) -> bool:
        """Whether the backbone runs as fused kernels."""
        return self._compiled is not None

    @property
    def low(self) -> str:
        """What a step rounds to, "" for float32."""
        return "bfloat16" if self._bfloat16 else "TF32" if arithmetic(self._device)["tf32"] else ""

    def stay_exact(self) -> None:
        """From here on float32."""
        self._bfloat16 = False
        if self._device.type == "cuda":
            set_tf32(False)

    @contextlib.contextmanager
    def exact(self) -> Iterator[None]:
        """For a while float32."""
        before = self._bfloat16, arithmetic(self._device)["tf32"]
        self.stay_exact()
        try:
            yield
        finally:
            self._bfloat16 = before[0]
            if before[1]:
                set_tf32(True)

    @property
    def parameters(self) -> tuple[int, int]:
        """How many numbers are tuned, and how many there are; a stage without epochs tunes none."""
        tuned = self._tuned if self._job.recipe.epochs else []
        return sum(p.numel() for p in tuned), sum(p.numel() for p in self.model.parameters())

    @property
    def as_pretrained(self) -> set[str]:
        """Names of the weights that are still the pretrained ones: never tuned, and not from a first stage."""
        if not self._job.pretrained:
            return set()
        frozen = {f"backbone.{name}" for name, p in self.model.backbone.named_parameters() if not p.requires_grad}
        return frozen - set(self._job.start)

    def _check_hooks(self) -> None:
        """Refuses overrides that would never be called."""
        for hook in ("before_step", "image_weights"):  # of an earlier contract
            if hasattr(self.method, hook):
                raise RunFailed(
                    f"'{self.method.name}' has {hook}, which is never called: see step_loss and relative_weight in "
                    "harness/api.py",
                    agreed=True,
                )
        if type(self.model).forward is not Classifier.forward:
            raise RunFailed(
                f"`build` of '{self.method.name}' gives a network with a forward of its own, which is never called: "
                "put it into the backbone or the head",
                agreed=True,
            )

    def _check_spread(self) -> None:
        """Refuses a run that cannot be spread, before it costs anything."""
        spread = self._job.spread
        if spread.changes_numbers and self._compiled is not None:
            raise UserError(f"{COMPILE}=1: whole batches are compiled, not their shares; not with {spread.options}")
        if spread.changes_numbers and (reason := self.method.whole_batch):
            raise UserError(f"{spread.options}: '{self.method.name}' needs a whole batch in one process: {reason}")
        own_step = type(self.method).step_loss is not Method.step_loss
        if spread.micro_batch and own_step and not self.frozen_backbone:
            raise UserError(
                f"--micro-batch: {self.method.name} needs the features of a whole batch; use more processes instead"
            )

    # ---- training steps -----------------------------------------------------------------------------------------

    def train_mode(self) -> None:
        """Sets training mode; a backbone whose features are fixed stays in evaluation mode."""
        self.model.train()
        if self.fixed_features:
            self.model.backbone.eval()
        for norm in self._still:
            norm.eval()

    def update(self) -> None:
        """Takes the optimiser's step, with clipped gradients where the recipe says so."""
        if self._job.recipe.clip_grad:
            torch.nn.utils.clip_grad_norm_(self._tuned, self._job.recipe.clip_grad)
        self.optimizer.step()

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of images in a training step (`harness.api.StepModel`)."""
        return self.embed(images)[1]

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of images in a training step."""
        if not self.frozen_backbone:
            return self.joint(images)
        features = self._frozen_features(images)
        return features, self.joint.head(features)

    def average(self, values: Tensor) -> Tensor:
        """Turns a mean over this rank's images into the mean over the whole batch."""
        return values if self._ranks.world == 1 else self._ranks.sum(values * self._weight)

    def begin_step(self, epoch: int, step: int, steps: int, weight: float) -> float:
        """Prepares a step (from 0) of `steps`; returns its learning rate, before the groups' own factors.

        `weight` is the part of its batch that is this rank's. `self.rate` is the same as a step reads it.
        """
        self._weight = weight
        if self._compiled is not None:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        recipe, self._epoch, self._step = self._job.recipe, epoch, step
        rate = learning_rate(
            recipe.schedule,
            recipe.lr,
            epoch=epoch,
            epochs=recipe.epochs,
            step=step,
            steps=steps,
            warmup=recipe.warmup_epochs,
        )
        self._set_rates(rate)
        return rate

    def _set_rates(self, rate: float) -> None:
        groups = self.optimizer.param_groups
        if self._rates is None:
            self.rate = rate
            for group, scale in zip(groups, self._lr_scales, strict=True):
                group["lr"] = rate * scale
            return
        torch.mul(self._scales, rate, out=self._rates)
        *each, self.rate = self._rates.unbind()
        for group, own in zip(groups, each, strict=True):
            group["lr"] = own

    def parts(self, batch: Batch) -> list[Batch]:
        """The micro-batches that go forward and backward in turn; over a frozen backbone, the whole batch."""
        return [batch] if self.frozen_backbone else micro_batches(batch, self._job.spread.micro_batch)

    # ---- features -----------------------------------------------------------------------------------------------

    def extract(self, images: Tensor) -> Tensor:
        """Features in float32 or more; the backbone may run in bfloat16, head and loss never do."""
        low = self._bfloat16
        no_grad = torch.no_grad() if self.frozen_backbone else contextlib.nullcontext()
        with no_grad, torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=low):
            features: Tensor = self._backbone(images)
        return features.float() if low else features

    def _backbone(self, images: Tensor) -> Tensor:
        """Runs the backbone; the compiled one only on full batches, where nearly all the time goes."""
        if self._compiled is not None and len(images) == self._job.recipe.batch_size:
            return self._compiled(images)
        try:
            return self.model.backbone(images)  # type: ignore[no-any-return]
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            if self._job.spread.changes_numbers:
                raise UserError(
                    f"{self._job.spread.options}: BatchNorm got a single image, a share of a batch of epoch "
                    f"{self._epoch + 1}; take fewer processes, or larger parts"
                ) from None
            hint = f"batch_size is {self._job.recipe.batch_size}; take a larger one"
            raise RunFailed(f"BatchNorm got a batch of a single image; {hint}", agreed=True) from None

    def share_features(self, folder: Path) -> None:
        """Takes over what other runs in this folder have computed with the same weights, and leaves its own for them.

        Only on a processor, alone, and where the harness itself makes the backbone and draws the batches: there the
        plan of an epoch says all of it.
        """
        plain = type(self.method).build is Method.build and type(self.method).choose is Method.choose
        whole = self._ranks.world == 1 and not self._job.spread.micro_batch and self._compiled is None
        train = self._data["train"]
        if self.fixed_features and plain and whole and self._device.type == "cpu" and isinstance(train, ResidentPart):
            job, recipe, backbone = self._job, self._job.recipe, self.model.backbone
            basis = job.backbone, job.precision, tensors_digest(backbone.state_dict())
            batches = f"{recipe.augment} {recipe.batch_size} {recipe.drop_last} {tensors_digest(train.source)}"
            self.shared = SharedFeatures(folder, basis, batches)

    def part_features(self, part: str, which: range, *, mirrored: bool = False) -> Iterable[Tensor]:
        """Features of a part's images without augmentation, in batches; kept where the backbone never changes."""
        if (part, mirrored) in self.kept_features:
            return self.kept_features[part, mirrored]
        images = self._data[part].in_order(EVAL_BATCH[self._device.type], which)
        features = (self.extract(batch.flip(-1) if mirrored else batch) for batch in images)
        if not self.fixed_features:
            return features

        def compute() -> list[Tensor]:
            return [some.clone() for some in features]  # clones: a compiled graph writes into its memory again

        data = self._data[part]
        if self.shared and isinstance(data, ResidentPart):
            kept = self.shared.of_part(part, tensors_digest(data.source), f"{which} {mirrored}", compute)
        else:
            kept = compute()
        self.kept_features[part, mirrored] = kept
        return kept

    def _frozen_features(self, images: Tensor) -> Tensor:
        """Of a frozen backbone; those of training images are computed once where they are the same in every epoch."""
        recipe, batch = self._job.recipe, self.batch
        kept = self.fixed_features and recipe.augment == Augment() and recipe.mixup_alpha == recipe.cutmix_alpha == 0
        if kept and batch is not None and images is batch.images:
            if self._train_features is None:
                self._train_features = torch.cat(list(self.part_features("train", range(len(self._data["train"])))))
            return self._train_features[batch.index]
        if self.shared and batch is not None and images is batch.images:
            return self.shared.of_step(self._step, lambda: self.extract(images))
        pieces = torch.split(images, batch_sizes(len(images), self._job.spread.micro_batch or len(images)))
        return torch.cat([self.extract(piece) for piece in pieces]) if len(pieces) > 1 else self.extract(images)
