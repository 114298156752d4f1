"""GroMo (extra `bench`), the library of the paper's authors, driven as its own graph tutorial does it.

A growth step asks the graph for its moves, measures the expressivity bottleneck, fits every move's weights
(`execute_expansions`: 100 epochs of AdamW on the bottleneck, its default, at the tutorial's rate of 1e-2), finds each
move's amplitude, and applies the best one. It has the three strategies of the paper: all moves, those that
`restrict_action_space` leaves for the node with the largest bottleneck, and of these the one with the best BIC.

- **Start.** Its graph starts with an edge from the inputs to the output, random and untrained, so it is trained before
  the first growth, as in the tutorial.
- **Amplitude.** Version 0.1.0's `execute_expansions(amplitude_factor=True)` ends in an UnboundLocalError, so its line
  search, `find_amplitude_factor`, is called for each move here, on the part that the paper searches on. The tutorial
  tries five amplitudes instead: `search="five"`.
- **Moves.** All moves of a step on one graph, as in the tutorial, end in an error as soon as two nodes could feed each
  other: their edges make a cycle. So each move has its own copy of the network, which takes milliseconds.
- **Choice.** `choose_growth_best_action` ends in an error when the best move is a state between two that no edge joins.
  So what it does, the smallest loss or BIC on the third part, is done here.
- Everything else is the library's. That includes what lowers its quality: weights of new edges are fitted along the
  slope and applied against it, so a search gives most of them an amplitude of zero; and its BIC, k log n - 2 log loss,
  rewards a larger loss.
"""

from __future__ import annotations

import copy
import importlib.util
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch

from benchmarks.startup import Seconds
from growir.graph import Graph, Input, Node
from growir.ops import OP_BY_KIND, Add, Linear

Strategy = Literal["whole", "restricted", "bic"]
Search = Literal["line", "five"]
Part = tuple[torch.Tensor, torch.Tensor]
FIVE = (0.0, 0.05, 0.1, 0.5, 1.0)  # the tutorial's


def installed() -> bool:
    return importlib.util.find_spec("gromo") is not None


class Grown(NamedTuple):
    """One growth step.

    Attributes:
        seconds: It took.
        candidates: Moves that were measured.
        amplitude: Of the move that was applied.
    """

    seconds: Seconds
    candidates: int
    amplitude: float


class Whole:
    """What the library iterates over, a part in one batch; torch's DataLoader would collate it sample by sample."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.dataset = range(len(part[0]))  # the library asks for its length

    def __iter__(self) -> Iterator[Part]:
        yield self.part


class Peer:
    """A network of GroMo's that grows on three parts of the data: for weights, for amplitudes, for the choice."""

    def __init__(
        self,
        parts: Sequence[Part],
        loss: torch.nn.Module,
        outputs: int,
        neurons: int,
        *,
        hidden: Sequence[int] = (),
        activation: str = "selu",
    ) -> None:
        from gromo.containers.growing_graph_network import GrowingGraphNetwork

        self.loss = loss
        self.loaders = [Whole(part) for part in parts]
        inputs = parts[0][0].shape[1]
        self.net: Any = GrowingGraphNetwork(
            inputs, outputs, loss, neurons=neurons, neuron_lrate=1e-2, name="dag", device="cpu"
        )
        self.activation = activation
        if hidden:
            self._start_from(inputs, hidden, outputs, neurons)

    def _start_from(self, inputs: int, hidden: Sequence[int], outputs: int, neurons: int) -> None:
        """Start from layers in a row instead of the single edge."""
        from gromo.containers.growing_dag import GrowingDAG

        names = ["start@dag", *(f"{k}@dag" for k in range(1, len(hidden) + 1)), "end@dag"]
        sizes = [inputs, *hidden, outputs]
        nodes = {name: {"type": "linear", "size": size} for name, size in zip(names, sizes, strict=True)}
        for name in names[1:-1]:
            nodes[name]["activation"] = self.activation
        layers = {
            "edges": list(pairwise(names)),
            "node_attributes": nodes,
            "edge_attributes": {"type": "linear", "use_bias": True},
        }
        self.net.dag = GrowingDAG(
            inputs,
            outputs,
            neurons,
            use_bias=True,
            use_layer_norm=False,
            activation=self.activation,
            name="dag",
            DAG_parameters=layers,
            device="cpu",
        )
        self.net._growing_layers = [self.net.dag]

    def grow(self, strategy: Strategy = "whole", search: Search = "line") -> Grown:
        """One growth step."""
        started = Seconds(time.perf_counter(), time.process_time())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            candidates = self._grow(strategy, search)
        seconds = Seconds(time.perf_counter() - started.wall, time.process_time() - started.cpu)
        return Grown(seconds, candidates, float(self.net.chosen_action.metrics["scaling_factor"]))

    def _grow(self, strategy: Strategy, search: Search) -> int:
        net, fitting = self.net, self.loaders[0]
        moves = net.dag.define_next_actions()
        bottlenecks, inputs = net.dag.calculate_bottleneck(moves, fitting, self.loss)
        if strategy != "whole":
            worst = max(bottlenecks, key=lambda node: float(torch.linalg.norm(bottlenecks[node])))
            moves = net.restrict_action_space(moves, chosen_outputs=[worst])
        score = "BIC" if strategy == "bic" else "loss_val"
        options = [self._measured(move, bottlenecks, inputs, search) for move in moves]
        self.net, chosen = min(options, key=lambda option: option[1].metrics[score])
        self._apply(chosen)
        return len(moves)

    def _apply(self, move: Any) -> None:
        from gromo.containers.growing_dag import ExpansionType

        self.net.chosen_action = move
        if move.type == ExpansionType.NEW_NODE:
            self.net.dag.toggle_node_candidate(move.expanding_node, candidate=False)
        elif move.type == ExpansionType.NEW_EDGE:
            self.net.dag.toggle_edge_candidate(move.previous_node, move.next_node, candidate=False)
        self.net.apply_change()
        self.net.dag.delete_update()

    def _measured(self, move: Any, bottlenecks: Any, inputs: Any, search: Search) -> tuple[Any, Any]:
        """A copy of the network in which a move is ready to be applied, and the move there."""
        net, move = copy.deepcopy((self.net, move))
        net.execute_expansions([move], bottlenecks, inputs, amplitude_factor=False, evaluate=False)
        factor = self._amplitude(net, move, search)
        net.set_scaling_factor(factor)
        move.metrics["scaling_factor"] = factor
        move.evaluate(net, None, None, self.loaders[2], self.loss)
        return net, move

    def _amplitude(self, net: Any, move: Any, search: Search) -> float:
        mask = move.create_mask()
        if search == "line":
            return float(net.find_amplitude_factor(self.loaders[1], mask))
        ((x, y),) = self.loaders[2]
        losses: dict[float, float] = {}
        for factor in FIVE:
            net.set_scaling_factor(factor)
            with torch.no_grad():
                losses[factor] = float(self.loss(net.extended_forward(x, mask=mask)[0], y))
        return min(losses, key=losses.__getitem__)

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """Every parameter by name."""
        dag = self.net.dag
        layers = {f"{a} {b}": dag.get_edge_module(a, b).layer for a, b in dag.edges}
        return {f"{edge}.{name}": p for edge, layer in layers.items() for name, p in layer.named_parameters()}

    def graph(self) -> Graph:
        """Its architecture."""
        import networkx as nx

        dag = self.net.dag
        nodes: list[Node] = []
        values = {dag.root: "x"}
        order = [name for name in nx.topological_sort(dag) if name != dag.root]
        for k, name in enumerate(order):
            edges: list[str] = []
            for before in dag.predecessors(name):
                layer = dag.get_edge_module(before, name).layer
                op = Linear(out_features=layer.out_features, bias=layer.bias is not None)
                edges.append(f"edge_{k}_{len(edges)}")
                nodes.append(Node(name=edges[-1], op=op, inputs=(values[before],)))
            values[name] = edges[0]
            if len(edges) > 1:
                values[name] = f"sum_{k}"
                nodes.append(Node(name=values[name], op=Add(), inputs=tuple(edges)))
            if name != dag.end:
                act = Node(name=f"act_{k}", op=OP_BY_KIND[self.activation](), inputs=(values[name],))
                values[name] = act.name
                nodes.append(act)
        given = Input(name="x", shape=("N", dag.nodes[dag.root]["size"]))
        return Graph(name="gromo", inputs=(given,), nodes=tuple(nodes), outputs=(values[dag.end],))


def layer_step(x: torch.Tensor, y: torch.Tensor, width: int, neurons: int) -> float:
    """Seconds of a step of its growth without a graph: in closed form, the better of two hidden layers gets wider.

    As its tutorial of containers does it: statistics of all layers in one pass, in batches of 1000, then four
    amplitudes on the same samples.
    """
    from gromo.containers.growing_mlp import GrowingMLP
    from gromo.utils.training_utils import compute_statistics

    torch.manual_seed(0)
    classes = int(y.max()) + 1
    model: Any = GrowingMLP(x.shape[1], classes, width, 2, activation=torch.nn.ReLU(), device=torch.device("cpu"))
    batches = [(x[k : k + 1000], y[k : k + 1000]) for k in range(0, len(x), 1000)]
    started = time.perf_counter()
    compute_statistics(model, batches, torch.nn.CrossEntropyLoss(reduction="sum"))
    model.compute_optimal_updates(maximum_added_neurons=neurons)
    model.reset_computation()
    model.select_best_update()
    losses: dict[float, float] = {}
    for factor in (0.0, 0.1, 0.5, 1.0):
        model.set_scaling_factor(factor)
        with torch.no_grad():
            losses[factor] = sum(
                float(torch.nn.functional.cross_entropy(model.extended_forward(a), b)) for a, b in batches
            )
    model.set_scaling_factor(min(losses, key=losses.__getitem__))
    model.apply_change()
    return time.perf_counter() - started
