"""Mixtures of experts: found in what exporters write, proven by numbers, and made one node each."""
