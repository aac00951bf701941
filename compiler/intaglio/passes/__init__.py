"""Relax to Relax: one pass, one file. `pipelines.py` lists them in order; `graph.py` is what all of them read."""
