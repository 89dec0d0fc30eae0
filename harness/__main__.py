"""`python -m harness` is the same command as `ltbench`."""

from harness.cli import main

main()
