"""Benchmarking and reproducibility harness for long-tailed visual recognition.

Importing this package is cheap on purpose: torch is imported only by `harness.api`,
`harness.engine` and `harness.data.resident`, so that `ltbench --help`, `collect` and `report` start fast.
"""

__version__ = "0.1.0"
