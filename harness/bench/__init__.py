"""`ltbench bench`: how fast the harness is, as ratios to what people write by hand, measured in the same run.

The files `measure_*.py` are pytest-benchmark tests, which the project's own `pytest` does not collect:
`harness.bench.command` runs them and turns what they measured into a table and a JSON file.
`tests/bench/README.md` says what each figure means.
"""
