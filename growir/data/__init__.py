"""Data for a run: from a file or arrays to numbers, with a description of what the numbers mean."""
