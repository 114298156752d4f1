"""Runs: what a growth run leaves behind and how it is read, shown and told; nothing here knows how networks grow."""
