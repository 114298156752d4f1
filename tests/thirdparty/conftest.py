"""The package here is somebody else's: it is installed, and its tests are run as its author would run them."""

collect_ignore = ["package"]
