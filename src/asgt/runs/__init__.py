"""Run folders and saved runs: writing and reading."""
