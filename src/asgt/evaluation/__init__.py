"""Evaluation: protocols, curves of accuracy over ε, and whether a number can be believed."""
