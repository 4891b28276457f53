"""Training: objectives (one file for each method), the trainer, the run folder and its checkpoint."""

import warnings

# accelerate imports a progress bar for notebooks, which warns where ipywidgets is missing. It draws none of ours.
warnings.filterwarnings("ignore", message="IProgress not found")
