"""Adapters: the second stage adds a small network to the frozen backbone and tunes that and the head."""

from typing import Any

import torch
from torch import Tensor, nn

from harness.api import Classifier, Method, Stage, StepContext
from harness.toolbox.losses import balanced_softmax_loss


class WithAdapter(nn.Module):
    """What a layer gives, plus what the adapter makes of it; it starts as nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)
        nn.init.zeros_(self.up.weight)
        assert self.up.bias is not None
        nn.init.zeros_(self.up.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps in, feature maps out."""
        added: Tensor = self.up(torch.relu(self.down(maps)))
        return maps + added


class Adapters(Method):
    """Balanced Softmax in stage 2. The backbone's own weights keep their names, so stage 1's find their place."""

    name = "adapters"
    stages = ("train", "finetune")

    def build(self, backbone: nn.Module, stage: Stage) -> Classifier:
        """In stage 2 with an adapter behind the second layer."""
        if stage == "finetune":
            backbone.adapter = adapter = WithAdapter(32)
            backbone.layer2.register_forward_hook(lambda _module, _inputs, maps: adapter(maps))
        return Classifier(backbone, self.head(stage))

    def param_groups(self, model: Classifier, stage: Stage) -> list[dict[str, Any]]:
        """Stage 2: adapter and head."""
        if stage == "train":
            return super().param_groups(model, stage)
        return [{"params": [*model.backbone.adapter.parameters(), *model.head.parameters()]}]

    def loss(self, logits: Tensor, target: Tensor, step: StepContext) -> Tensor:
        """Cross-entropy, then Balanced Softmax."""
        if step.stage == "train":
            return super().loss(logits, target, step)
        return balanced_softmax_loss(logits, target, self.task.class_counts)
