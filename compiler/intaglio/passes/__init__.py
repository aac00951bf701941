"""Relax to Relax: one pass, one file. `pipelines.py` lists them in order."""
