"""When to grow, and how much at once."""
