"""asgt: train image classifiers that are robust and interpretable at once, and prove both honestly."""
