"""Cells that were found by growing them, beside random ones and a published one."""
