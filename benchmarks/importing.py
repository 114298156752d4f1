"""How long the import of a GPT of 124 million weights takes beside torch.export, and how much memory.

The model has the sizes of GPT-2 small, with its head tied to its embedding. Each way runs in a process of its own on
one thread; the value is the ratio of medians of CPU seconds. Memory is that at the highest less that before, as a
multiple of the weights'; the value is that of the import less that of torch.export, which holds code and traces. The
network that is made is one copy of the weights.

**export** is torch.export alone, in eval mode, with an open batch. An import exports in train mode too, and, when it
compares, once more at another length.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

import growir
from benchmarks.lowered import Gpt

SIZES = {"layers": 12, "heads": 12, "words": 50257, "context": 1024}
WIDTH, TOKENS, REPEATS = 768, 16, 3
# At most so much longer than torch.export, and so many copies of the weights.
LIMITS = {"import, check=False": (3.0, 1.2), "import": (10.0, 6.0)}


def measured(way: str) -> dict[str, float]:
    """CPU seconds and copies of the weights of one way, in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Gpt(WIDTH, **SIZES).eval()
    model.head.weight = model.wte.weight
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    tokens = torch.randint(SIZES["words"], (2, TOKENS))
    before, begun = _resident(), time.process_time()
    if way == "export":
        torch.export.export(model, (tokens,), dynamic_shapes=({0: Dim("batch", min=2)},), strict=False)
    else:
        growir.from_torch(model, tokens, check=way == "import")
    seconds = time.process_time() - begun
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"cpu": seconds, "copies": (most - before) / weights}


def _resident() -> int:
    """The bytes that the process holds now; the most that it ever held, where that is not known."""
    pages = Path("/proc/self/statm")
    if pages.is_file():
        return int(pages.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run() -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ("export", *LIMITS)}
    for _ in range(REPEATS):
        for way, lines in found.items():
            done = subprocess.run([sys.executable, "-m", __name__, way], check=True, capture_output=True, text=True)
            lines.append(json.loads(done.stdout))
    middle = {
        way: {name: statistics.median(line[name] for line in lines) for name in ("cpu", "copies")}
        for way, lines in found.items()
    }
    rows: list[dict[str, Any]] = []
    for way, (slower, copies) in LIMITS.items():
        ratio = middle[way]["cpu"] / middle["export"]["cpu"]
        rows.append({"what": f"{way}: CPU seconds / torch.export's", "value": ratio, "limit": slower})
        rows[-1] |= {"cpu": middle[way]["cpu"], "beside": middle["export"]["cpu"]}
        more = middle[way]["copies"] - middle["export"]["copies"]
        rows.append({"what": f"{way}: copies of the weights beyond torch.export's", "value": more, "limit": copies})
        rows[-1] |= {"copies": middle[way]["copies"], "beside": middle["export"]["copies"]}
    return {"rows": rows, "all": found, "torch": torch.__version__, "threads": 1}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(measured(sys.argv[1])))
