"""A supervised contrastive loss over two views of each image beside cross-entropy: pairs within the batch."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Batch, Classifier, Method, Stage, StepContext, StepModel, View


class TwoViews(Method):
    """L = CE + 0.5 SupCon (Khosla et al., NeurIPS 2020, eq. 2), on projected features."""

    name = "two_views"
    whole_batch = "its contrastive loss compares the images of a batch with each other"

    def build(self, backbone: nn.Module, stage: Stage) -> Classifier:
        """With a projector, which inference does not use."""
        model = Classifier(backbone, self.head(stage))
        model.projector = nn.Sequential(nn.Linear(self.task.feature_dim, 32), nn.ReLU(), nn.Linear(32, 16))
        return model

    def views(self, labels: np.ndarray, stage: Stage) -> tuple[View, ...]:
        """Each image twice."""
        return View(self.sampler(labels, stage)), View(augment="strong")

    def step_loss(self, model: StepModel, views: tuple[Batch, ...], step: StepContext) -> Tensor:
        """Both views go through the network together."""
        features, logits = model.embed(torch.cat([view.images for view in views]))
        target = torch.cat([view.target for view in views])
        z = F.normalize(step.model.get_submodule("projector")(features), dim=1)
        others = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
        same = (target[:, None] == target) & others
        similarity = (z @ z.T / 0.1).masked_fill(~others, -torch.inf)
        log_share = (similarity - similarity.logsumexp(1, keepdim=True)).masked_fill(~same, 0.0)
        contrast = -(log_share.sum(1) / same.sum(1).clamp_min(1)).mean()
        return F.cross_entropy(logits, target) + 0.5 * contrast
