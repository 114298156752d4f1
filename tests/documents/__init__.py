"""What README and docs show is run as they show it: see test_blocks.py."""
