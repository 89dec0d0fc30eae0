"""`python -m harness` is the same command as `ltbench`."""

from harness.cli import main

if __name__ == "__main__":  # worker processes import this module too
    main()
