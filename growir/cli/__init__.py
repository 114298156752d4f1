"""The command line. Modules here import nothing heavy: a command imports what it needs when it runs."""

from __future__ import annotations


def main() -> None:
    """Run `growir` with the process's arguments, and exit."""
    from growir.cli.app import run

    run()
