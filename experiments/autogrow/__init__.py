"""AutoGrow (Wen et al. 2020): what its policies do on curves, and what depth it finds on thin networks."""
