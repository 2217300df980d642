"""Lets `python -m benchmarks.worth` run it; processes import their work from `run.py`."""

from benchmarks.worth.run import main

main()
