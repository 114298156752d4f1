"""Firefly's toy (Wu et al. 2020, section 3.1, figure 3a and b): RBF networks of one input, grown from 1 unit to 10.

    python -m experiments.firefly.toy --out runs/firefly-toy

f(x) = sum_i w_i exp(-(a_i x + b_i)^2 / 2) follows a teacher of 15 such units on 1000 points. Twenty repeats, each with
a teacher and a start of its own, grow side by side: as branches of one growir network where Firefly grows them, as rows
of tensors where they are trained.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from experiments.tables import grid
from growir import live
from growir.data.shuffling import generator
from growir.data.source import Batch
from growir.graph import Graph, Input, Node
from growir.growth.measure.gated import Gated
from growir.growth.measure.judging import along_path
from growir.growth.measure.learning import learned
from growir.growth.measure.sites import sites
from growir.network import Network
from growir.ops import Gaussian, Linear
from growir.plot import decade_axis, linear_axis
from growir.render.axes import ABOVE, BELOW, HEAD, LEFT, RIGHT, Panel, chart, marker
from growir.verify import verify

REPEATS, POINTS, TEACHER, LARGEST = 20, 1000, 15, 10
SPREAD = (1 / 6) ** 0.5  # standard deviation of the initialiser of a linear layer of two inputs
SCALES = (1 / SPREAD, 3 / SPREAD)  # of the inputs x and 1, so that it draws slopes of 1 and offsets of 3
STEP = 0.1  # of splits and fresh units that are drawn by chance, as of the largest gates
SEARCH, MORE = 3, 900  # tries of random search: 900 take as much time as Firefly's growths do


class Nets(NamedTuple):
    """All repeats of one size: incoming weights (repeats, units, 2), of x and 1, and outgoing ones (repeats, units)."""

    theta: torch.Tensor
    w: torch.Tensor


class Problem(NamedTuple):
    """Points (n,) and targets (repeats, n)."""

    x: torch.Tensor
    y: torch.Tensor


Grow = Callable[[Nets, Problem, tuple[int, ...]], Nets]


def drawn(count: int, draws: torch.Generator) -> torch.Tensor:
    """(repeats, count, 2) incoming weights: slopes of spread 1 and offsets of spread 3."""
    return torch.randn(REPEATS, count, 2, generator=draws) * torch.tensor([1.0, 3.0])


def problem(seed: int) -> Problem:
    """Teachers' outputs, each of unit variance."""
    draws = generator(seed, 1)
    x = torch.linspace(-5, 5, POINTS)
    y = outputs(Nets(drawn(TEACHER, draws), torch.randn(REPEATS, TEACHER, generator=draws)), x)
    return Problem(x, y / y.std(1, keepdim=True))


def outputs(nets: Nets, x: torch.Tensor) -> torch.Tensor:
    """(repeats, n)."""
    u = nets.theta[..., :1] * x + nets.theta[..., 1:]
    found: torch.Tensor = torch.einsum("rk,rkn->rn", nets.w, torch.exp(-0.5 * u * u))
    return found


def losses(nets: Nets, task: Problem) -> torch.Tensor:
    """(repeats,) mean squares."""
    return (outputs(nets, task.x) - task.y).square().mean(1)


def slopes(nets: Nets, task: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each repeat's mean square, written down: three times as fast as autograd."""
    u = nets.theta[..., :1] * task.x + nets.theta[..., 1:]
    phi = torch.exp(-0.5 * u * u)
    rest = (torch.einsum("rk,rkn->rn", nets.w, phi) - task.y) * (2 / POINTS)
    part = phi.mul_(rest[:, None])
    of_w = part.sum(2)
    inner = u.mul_(part).mul_(-nets.w[..., None])
    return torch.stack([inner @ task.x, inner.sum(2)], -1), of_w


def trained(nets: Nets, task: Problem, steps: int, rate: float = 0.05) -> Nets:
    """Adam with a cosine."""
    theta, w = torch.nn.Parameter(nets.theta.clone()), torch.nn.Parameter(nets.w.clone())
    optimizer = torch.optim.Adam([theta, w], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with torch.no_grad():
        for _ in range(steps):
            theta.grad, w.grad = slopes(Nets(theta, w), task)
            optimizer.step()
            schedule.step()
    return Nets(theta.detach(), w.detach())


# -- how they grow ----------------------------------------------------------------------------------------------------


def split(nets: Nets, unit: torch.Tensor, by: torch.Tensor) -> Nets:
    """Of each repeat one unit (repeats,) becomes two, apart by (repeats, 2)."""
    rows = torch.arange(REPEATS)
    theta, w = nets.theta.clone(), nets.w.clone()
    old, half = theta[rows, unit], w[rows, unit] / 2
    theta[rows, unit], w[rows, unit] = old - by, half
    return Nets(torch.cat([theta, (old + by)[:, None]], 1), torch.cat([w, half[:, None]], 1))


def added(nets: Nets, theta: torch.Tensor, w: torch.Tensor) -> Nets:
    """One unit more for each repeat."""
    return Nets(torch.cat([nets.theta, theta[:, None]], 1), torch.cat([nets.w, w[:, None]], 1))


def either(first: Nets, takes: torch.Tensor, second: Nets) -> Nets:
    """Of each repeat the second where it takes it."""
    return Nets(
        torch.where(takes[:, None, None], second.theta, first.theta), torch.where(takes[:, None], second.w, first.w)
    )


def branches(nets: Nets) -> Network:
    """All repeats as branches of one network."""
    units = nets.w.shape[1]
    nodes: list[Node] = []
    arrays: dict[str, torch.Tensor] = {}
    for r in range(REPEATS):
        nodes += [
            Node(name=f"in{r}", op=Linear(out_features=units, bias=False), inputs=("x",)),
            Node(name=f"rbf{r}", op=Gaussian(), inputs=(f"in{r}",)),
            Node(name=f"out{r}", op=Linear(out_features=1, bias=False), inputs=(f"rbf{r}",)),
        ]
        arrays |= {f"in{r}.weight": nets.theta[r] / torch.tensor(SCALES), f"out{r}.weight": nets.w[r][None]}
    entry = Input(name="x", shape=("N", 2))
    graph = Graph(inputs=(entry,), nodes=tuple(nodes), outputs=tuple(f"out{r}" for r in range(REPEATS)))
    return Network(verify(graph), {key: array.numpy() for key, array in arrays.items()})


def firefly(fresh: int, gate: float = 0.3, rate: float = 0.1, steps: int = 20) -> Grow:
    """Each repeat gets the split or fresh unit that is worth most, of `fresh` and as many splits as it has units."""

    def grow(nets: Nets, task: Problem, key: tuple[int, ...]) -> Nets:
        network = branches(nets)
        module, found = network.to_torch(), sites(network.graph).sites
        gated = Gated(module, found, fresh=fresh, key=key)
        batch = Batch((torch.stack([task.x, torch.ones_like(task.x)], 1) * torch.tensor(SCALES),), task.y)

        def loss(gates: torch.Tensor, some: Batch) -> torch.Tensor:
            assert isinstance(some.inputs, tuple)
            errors: torch.Tensor = torch.cat(gated(gates, *some.inputs), 1).T - some.target
            return errors.square().mean(1).sum()

        gates = learned(gated, loss, [batch] * steps, eps=gate, rate=rate)
        changes = along_path(gates, loss, [batch])
        isfresh = torch.tensor([unit.kind == "fresh" for unit in gated.units])
        gates = torch.where(isfresh & (changes > 0), -gates, gates)
        gains = torch.where(isfresh, changes.abs(), -changes)
        each = len(gated.units) // REPEATS
        picked = [r * each + int(gains[r * each : (r + 1) * each].argmax()) for r in range(REPEATS)]
        state = live.grow(module, gated.chosen(picked, gates))[0].state_dict()
        theta = torch.stack([state[f"in{r}.weight"] for r in range(REPEATS)]) * torch.tensor(SCALES)
        return Nets(theta.detach(), torch.cat([state[f"out{r}.weight"] for r in range(REPEATS)]).detach())

    return grow


def steepest(nets: Nets, task: Problem, key: tuple[int, ...]) -> Nets:
    """Splitting steepest descent (Wu et al. 2019): the smallest eigenvalue of all splitting matrices, exactly."""
    u = nets.theta[..., :1] * task.x + nets.theta[..., 1:]
    rest = (outputs(nets, task.x) - task.y) * (2 / POINTS)
    curved = (u * u - 1) * torch.exp(-0.5 * u * u) * nets.w[..., None] * rest[:, None]
    of_x = (curved * task.x).sum(-1)
    rows = [torch.stack([(curved * task.x**2).sum(-1), of_x], -1), torch.stack([of_x, curved.sum(-1)], -1)]
    values, vectors = torch.linalg.eigh(torch.stack(rows, -2))
    unit = values[..., 0].argmin(1)
    return split(nets, unit, STEP * vectors[torch.arange(REPEATS), unit, :, 0])


def search(tries: int, fresh: int) -> Grow:
    """The best of so many random splits and fresh units, by the loss right after."""

    def grow(nets: Nets, task: Problem, key: tuple[int, ...]) -> Nets:
        draws, units = generator(*key), nets.w.shape[1]
        best: Nets | None = None
        least = torch.full((REPEATS,), torch.inf)
        for _ in range(tries):
            unit = torch.randint(0, units + fresh, (REPEATS,), generator=draws)
            by = torch.randn(REPEATS, 2, generator=draws)
            found = split(nets, unit.clamp_max(units - 1), STEP * by / by.norm(dim=1, keepdim=True))
            sign = torch.randn(REPEATS, generator=draws).sign()
            found = either(found, unit >= units, added(nets, drawn(1, draws)[:, 0], STEP * sign))
            loss = losses(found, task)
            best = found if best is None else either(best, loss < least, found)
            least = torch.minimum(loss, least)
        assert best is not None
        return best

    return grow


METHODS: Mapping[str, Grow] = {
    "firefly, 5 fresh": firefly(5),
    "firefly, 1 fresh": firefly(1),
    "firefly, splits only": firefly(0),
    "splitting steepest descent": steepest,
    f"random search, {SEARCH} tries": search(SEARCH, 5),
    f"random search, {MORE} tries": search(MORE, 5),
}
SCRATCH = "from scratch"
ALL = (*METHODS, SCRATCH)
SIZES = (2, 4, 7, LARGEST)  # of which the table tells


# -- the experiment ---------------------------------------------------------------------------------------------------


def run(seed: int, steps: int, workers: int) -> list[dict[str, object]]:
    """A line for each method and size: losses of all repeats, seconds of growing and of training."""
    torch.set_num_threads(1)
    with ProcessPoolExecutor(workers) as pool:
        found = list(pool.map(run_one, ALL, [seed] * len(ALL), [steps] * len(ALL)))
    return [line for lines in found for line in lines]


def run_one(method: str, seed: int, steps: int) -> list[dict[str, object]]:
    """The lines of one method; seconds are a processor's, so that what else runs does not count."""
    torch.set_num_threads(1)
    task, draws = problem(seed), generator(seed, 2)
    lines: list[dict[str, object]] = []

    def tell(method: str, nets: Nets, growing: float, training: float) -> None:
        each = losses(nets, task)
        mean, error = float(each.mean()), float(each.std() / REPEATS**0.5)
        line = {
            "method": method,
            "units": nets.w.shape[1],
            "mean": mean,
            "error": error,
            "median": float(each.median()),
        }
        times = {"seconds_growing": round(growing, 3), "seconds_training": round(training, 3)}
        lines.append({"seed": seed, "steps": steps, **line, **times, "losses": each.tolist()})

    def start(size: int) -> Nets:
        return Nets(drawn(size, draws), 0.3 * torch.randn(REPEATS, size, generator=draws))

    if method == SCRATCH:
        for size in SIZES:
            first, begun = start(size), time.process_time()
            # As many steps as a grown network of this size has had.
            tell(method, trained(first, task, steps * size), 0.0, time.process_time() - begun)
        return lines
    nets = trained(start(1), task, steps)
    tell(method, nets, 0.0, 0.0)
    for size in range(2, LARGEST + 1):
        begun = time.process_time()
        grown = METHODS[method](nets, task, (seed, 3, size))
        between = time.process_time()
        nets = trained(grown, task, steps)
        tell(method, nets, between - begun, time.process_time() - between)
    return lines


def table(lines: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """The mean losses by method and size, with the standard error of the last, and the seconds of all sizes."""

    def rows() -> Iterator[Sequence[str]]:
        for name in ALL:
            mine = {line["units"]: line for line in lines if line["method"] == name}
            yield [
                name,
                *(f"{mine[n]['mean']:.3g} ± {mine[n]['error']:.1g}" for n in SIZES),
                *(f"{sum(float(str(line[what])) for line in mine.values()):.1f}" for what in SECONDS),
            ]

    yield from grid(["method", *(f"{n} units" for n in SIZES), "growing s", "training s"], rows())


SECONDS = ("seconds_growing", "seconds_training")


LOOKS = (
    ("edge", "circle", False),
    ("edge", "square", True),
    ("edge", "diamond", True),
    ("selection", "triangle", False),
    ("widening", "square", False),
    ("widening", "circle", True),
    ("node", "diamond", False),
)


def figure(lines: Sequence[Mapping[str, object]]) -> str:
    """Mean losses over units, as SVG: a line for each method."""
    points = {name: [(n, m) for line in lines if line["method"] == name for n, m in [_point(line)]] for name in ALL}
    flat = [point for each in points.values() for point in each]
    panel = Panel(LEFT, HEAD + ABOVE, 560, 340, linear_axis(n for n, _ in flat), decade_axis(m for _, m in flat))
    body, legend = panel.frame("mean squared error of 20 repeats", "units", "mse"), list[tuple[str, str]]()
    for name, (series, shape, hollow) in zip(ALL, LOOKS, strict=True):
        line = f"{series} line dashed" if hollow else f"{series} line"
        path = "L".join(f"{x} {y}" for x, y in (panel.at(*point) for point in points[name]))
        body.append(f'<path class="{line}" d="M{path}"/>')
        body += [marker(panel.at(*point), series, shape, hollow=hollow) for point in points[name]]
        legend.append((marker((0, 0), series, shape, hollow=hollow), name))
    size = (LEFT + 560 + RIGHT, HEAD + ABOVE + 340 + BELOW)
    return chart(
        "RBF networks, grown from 1 unit to 10", "Mean squared errors by method and units.", legend, body, size
    )


def _point(line: Mapping[str, object]) -> tuple[float, float]:
    return float(str(line["units"])), float(str(line["mean"]))


def main() -> None:
    """Run, and write toy.jsonl, toy.svg and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300, help="training steps of each size")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    given = parser.parse_args()
    begun = time.perf_counter()
    lines = run(given.seed, given.steps, given.workers)
    given.out.mkdir(parents=True, exist_ok=True)
    written = "".join(json.dumps(line) + "\n" for line in lines)
    (given.out / "toy.jsonl").write_text(written, encoding="utf-8")
    (given.out / "toy.svg").write_text(figure(lines), encoding="utf-8")
    print(*table(lines), sep="\n")
    print(f"\n{time.perf_counter() - begun:.0f} s in all")


if __name__ == "__main__":
    main()
