"""Evaluation: protocols, curves of accuracy over ε, and checks of the result."""
