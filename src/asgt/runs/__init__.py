"""A run folder and a saved run: what is written, and how it is read."""
