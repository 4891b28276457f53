"""One paper: its numbers, its claims, our verdicts, and the page of results."""
