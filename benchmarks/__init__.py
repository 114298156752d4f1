"""Speed and size, each beside a baseline measured on the same machine; `python -m benchmarks` runs all."""
