"""Cross-entropy: the baseline that every long-tailed method is compared with."""

from harness.api import Method


class CrossEntropy(Method):
    """Linear softmax head, cross-entropy, every image once an epoch: all of it is the default."""

    name = "ce"
