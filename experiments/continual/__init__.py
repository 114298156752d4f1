"""Continual learning: networks, sequences of tasks, and what methods come to on them."""
