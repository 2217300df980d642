"""Lets `python -m recipes.prior` run it; processes import their work from `run.py`."""

from recipes.prior.run import main

main()
