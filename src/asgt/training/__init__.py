"""Training: objectives (one file a method), the trainer, the run folder and its checkpoint."""
