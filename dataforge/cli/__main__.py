"""`python -m dataforge.cli` is `dataforge`."""

from dataforge.cli import main

main()
