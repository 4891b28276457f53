"""One paper: its numbers, its claims, the verdicts, and the page of results."""
