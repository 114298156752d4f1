"""`python -m growir` is `growir`."""

from growir.cli import main

if __name__ == "__main__":
    main()
