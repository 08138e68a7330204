"""`python -m discrepancy.cli` is the `discrepancy` command."""

from discrepancy.cli import main

if __name__ == "__main__":
    main()
