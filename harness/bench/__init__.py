"""`ltbench bench`: how fast the harness is, as ratios to what people write by hand, measured in the same run.

The benchmarks are pytest-benchmark tests, `tests/bench/measure_*.py`, which a plain `pytest` does not collect.
`command` runs them, `table` shows what they measured. `tests/bench/README.md` says what each figure means.
"""
