"""Learnable growth and learnable sparse growth beside each other on one task (GROWN, figure 2)."""
