"""Which of the networks that a run has tried should go on."""
