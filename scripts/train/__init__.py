"""Training of the default model: synthetic pages, real pages, targets, losses, the loop.

Run from the repository's root: `python -m scripts.train.pages`, `python -m scripts.train.train`.
dbcpu never imports it.
"""
