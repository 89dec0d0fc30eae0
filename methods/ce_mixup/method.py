"""Cross-entropy with mixup: Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018."""

from harness.api import Method


class CrossEntropyMixup(Method):
    """The method is in its recipe: mixup_alpha."""

    name = "ce_mixup"
