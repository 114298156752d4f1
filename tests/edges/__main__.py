"""Read many documents at the edges of every number: none may end in anything but a result or a GraphError.

    python -m tests.edges 100000

prints what became of them, the slowest, and the seeds of those that broke a rule; 1 if there are any.
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from types import FrameType

from tests.edges.checking import check
from tests.edges.drawing import document

SECONDS = 20  # for one document
GIGABYTES = 12  # of address space, of which torch alone takes some


def _late(signum: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"longer than {SECONDS} seconds")


def main() -> int:
    """Check as many documents as asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES * 2**30, GIGABYTES * 2**30))
    signal.signal(signal.SIGALRM, _late)
    started = time.monotonic()
    found: Counter[str] = Counter()
    slowest = (0.0, -1)
    for seed in range(given.first, given.first + given.count):
        text, begun = document(seed), time.monotonic()
        signal.alarm(SECONDS)
        try:
            found[check(text)] += 1
        except Exception as error:
            found["BROKEN"] += 1
            print(f"seed {seed}: {type(error).__name__}: {str(error)[:200]}", flush=True)
            if found["BROKEN"] <= 3:
                traceback.print_exc(limit=-6)
        finally:
            signal.alarm(0)
        slowest = max(slowest, (time.monotonic() - begun, seed))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{given.count} documents in {time.monotonic() - started:.0f} s, at most {memory:.1f} GiB: {dict(found)}")
    print(f"slowest {slowest[0]:.2f} s, seed {slowest[1]}")
    return 1 if found["BROKEN"] else 0


if __name__ == "__main__":
    sys.exit(main())
