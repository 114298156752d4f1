"""DAG growth by expressivity bottleneck (Douka et al. 2025)."""
