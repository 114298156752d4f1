"""Growth policies: each decides what grows and with which weights, and knows neither the engine nor another policy."""
