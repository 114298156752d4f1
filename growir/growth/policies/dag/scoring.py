"""Weights, amplitude and gain of a move, from what one pass over the data has measured."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from growir.growth.loss import mean_and_error
from growir.growth.measure.designs import along_channels, as_weight, chain, design, run_layer
from growir.growth.policies.dag.additions import Addition
from growir.growth.policies.dag.bottleneck import Fit, Moment, combine, fit, joined
from growir.growth.policies.dag.inputs import unit_of
from growir.growth.policies.dag.measuring import Measured, Part
from growir.growth.policies.dag.neurons import (
    FLAT,
    Neurons,
    activation_of,
    fitted_directions,
    neurons_of,
    random_directions,
    scaled,
)
from growir.growth.policies.dag.norms import following
from growir.growth.policies.dag.refining import Draft, refined
from growir.growth.policies.dag.scored import Outcome, Scored, Small
from growir.growth.policies.dag.settings import DagConfig, Directions
from growir.growth.policies.dag.states import Edge, StateView, is_output
from growir.growth.policy import Candidate
from growir.growth.session import generator
from growir.ops import Shape, Standardise
from growir.rewrite import Pass, Rewrite


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """The joint least squares of one fed state: changes of what may move of it, and weights of what is new."""

    target: StateView
    edges: tuple[Edge, ...]
    fit: Fit
    existing: tuple[torch.Tensor, ...]
    bias: torch.Tensor | None
    new: tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Draft(Draft):
    """A draft that knows how its neurons are made.

    Attributes:
        spare: Draws weights and biases, for neurons that cannot stay as they are.
        made: Makes neurons of weights and biases.
    """

    spare: Callable[[], tuple[torch.Tensor, torch.Tensor]]
    made: Callable[[torch.Tensor, torch.Tensor], Neurons]


class Scoring:
    """Scores the candidates of one growth.

    Args:
        measured: What all candidates share.
        config: Of the policy.
        step: Keys random numbers.
    """

    def __init__(self, measured: Measured, config: DagConfig, step: int) -> None:
        self.measured = measured
        self.config = config
        self.step = step

    def score(self, candidate: Candidate, done: Rewrite, new: Addition, neurons: Neurons | None) -> Scored:
        """A candidate with its weights.

        Args:
            candidate: The move.
            done: The move carried out on the structure.
            new: What it adds.
            neurons: Its new neurons, if it has some.
        """
        measured, session = self.measured, self.measured.session
        solved = [self._solve(neurons, target, edges) for target, edges in new.outgoing]
        key = tuple(s.target.node for s in solved)
        shifts = [self._shift(s, neurons, measured.ls) for s in solved]
        search = measured.downstream(key).search(shifts, self._largest_amplitude(solved, shifts))
        self._count(done, solved, measured.downstream(key).flops)
        amplitude, predicted = search.amplitude, self._predicted(solved, shifts)
        step: Pass = candidate.part
        final = self._with_values(step, new, neurons, solved, amplitude)
        updates: dict[str, torch.Tensor] = {}
        for each, shift in zip(solved, shifts, strict=True):
            updates |= self._updates(each, amplitude)
            if amplitude > 0:
                sums = measured.ls.values[each.target.node]
                updates |= following(each.target.norm, session.tensors, sums, sums + amplitude * shift)
        before = float(measured.losses.double().mean())
        gain, error = 0.0, None
        outcome: Outcome = "no amplitude"  # applied, it would be neurons that nothing reads
        if amplitude > 0:
            if len(solved) == 1:
                # One state moves, and nothing that its move is made of lies behind it: its shift tells all.
                moved = [amplitude * self._shift(s, neurons, measured.gr) for s in solved]
                after = measured.downstream(key, choosing=True).losses(moved)
            else:
                # Where one target lies behind another, shifts leave out second-order terms.
                after = session.preview(done, final.values, updates, measured.gr.values, measured.gr.targets)
            gain, error = mean_and_error(measured.losses - after)
            outcome = "improving" if gain > 0 else "no gain"
        return Scored(
            candidate=candidate,
            step=final,
            updates=updates,
            amplitude=amplitude,
            predicted=amplitude * predicted if amplitude else 0.0,  # which may be infinite, and is not tried then
            gain=gain,
            error=error,
            loss=before - gain,
            loss_before=before,
            parameters=done.graph.costs().parameters,
            parameters_before=session.graph.costs().parameters,
            outcome=outcome,
            small=Small(search.small, search.small * predicted, search.gained),
            convolves=new.convolves,
            idle=self._with_values(step, new, neurons, solved, 0.0),
        )

    def _count(self, done: Rewrite, solved: Sequence[Solved], search: float) -> None:
        """Floating-point operations: what is added runs on three parts; moments and a factor; the line search."""
        session, samples = self.measured.session, len(self.measured.opt.targets)
        added = done.graph.costs().macs - session.graph.costs().macs
        total = 6.0 * max(added, 0) * samples + search
        for each in solved:
            bottleneck, features = self.measured.bottleneck(each.target), len(each.fit.new)
            width = features + len(each.fit.existing) + each.target.width
            total += 2.0 * len(bottleneck.desired) * features * width + features**3 / 3
        session.meter.count(total)

    # -- new neurons --------------------------------------------------------------------------------------------------

    def neurons(self, candidates: Sequence[tuple[Pass, Addition]], directions: Directions) -> Iterator[Neurons | None]:
        """The new neurons of each candidate that has some, one after the other, since their activations are large.

        Args:
            candidates: The moves, with what they add.
            directions: Random directions, or the best of a pool for what the targets lack; those of vectors are then
                fitted further, all candidates of one shape at once.
        """
        drafts = [self._draft(step, new, directions) if new.incoming else None for step, new in candidates]
        if directions == "fitted":
            fitting = [k for k, draft in enumerate(drafts) if draft is not None and draft.rest.numel()]
            refining = refined([draft for k in fitting if (draft := drafts[k]) is not None])
            for k, (weight, bias) in zip(fitting, refining, strict=True):
                draft = drafts[k]
                assert draft is not None
                drafts[k] = replace(draft, weight=weight, bias=bias)
        for draft, (_, new) in zip(drafts, candidates, strict=True):
            yield None if draft is None else self._alive(draft, new, fitted=directions == "fitted")

    def _draft(self, candidate: Pass, new: Addition, directions: Directions) -> _Draft:
        incoming = new.incoming
        assert incoming is not None
        measured, tensors = self.measured, self.measured.session.tensors
        draws = generator(
            measured.session.config.seed,
            3,
            self.step,
            zlib.crc32(f"{candidate.name} {candidate.model_dump_json()}".encode()),
        )
        names = incoming.activation.params(Shape(("N", 1)))
        learned: Mapping[str, torch.Tensor] = {}
        if incoming.activated is not None:
            learned = {name: tensors[f"{incoming.activated}.{name}"] for name in names}
        # Most activations have no weights, and one function of each serves all candidates.
        activation = (
            activation_of(incoming.activation, learned, incoming.shape.rank)
            if names
            else chain((incoming.activation,), incoming.shape)
        )
        inputs = [measured.design(edge, incoming.shape) for edge in incoming.edges]

        def made(weight: torch.Tensor, bias: torch.Tensor) -> Neurons:
            return neurons_of(incoming, weight, bias, inputs, activation)

        whole, rest = torch.zeros(0, 0), torch.zeros(0, 0)
        if directions == "random":
            weight = random_directions(inputs, incoming.count, draws)
            weight, bias = scaled(inputs, weight, 1.0, draws)
        else:
            fed = self._alike(new)
            rest = torch.cat([measured.bottleneck(target).rest for target, _ in fed], dim=1)

            def blocks(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
                values = made(weight, bias).activations(measured.opt)
                found = [self._features(values, target, [edge]) for target, edges in fed for edge in edges]
                return torch.cat([part.reshape(len(part), weight.shape[1], -1) for part in found], dim=2)

            aligned = incoming.shape.sizes[1:] == fed[0][0].shape.sizes[1:]
            ridge = self.config.ridge or 1e-3
            weight, bias = fitted_directions(inputs, rest, blocks, incoming.count, ridge, draws, aligned=aligned)
            # Between maps a target reads a neuron at many positions, which the descent does not know of.
            vectors = incoming.shape.rank == 2 and incoming.shifted
            whole, rest = (torch.cat(inputs, dim=1), rest) if vectors else (whole, torch.zeros(0, 0))
        kind = (incoming.activation, tuple(tensor.detach().numpy().tobytes() for tensor in learned.values()))

        def spare() -> tuple[torch.Tensor, torch.Tensor]:
            return scaled(inputs, random_directions(inputs, incoming.count, draws), 1.0, draws)

        return _Draft(whole, rest, weight, bias, activation, kind, spare, made)

    def _alive(self, draft: _Draft, new: Addition, *, fitted: bool) -> Neurons:
        """The neurons of a draft, each of which some sample gives a gradient."""
        # Large fitted neurons win now and lose after training, so they start at half the scale.
        weight, bias = (0.5 * draft.weight, 0.5 * draft.bias) if fitted else (draft.weight, draft.bias)
        # One that would never learn is turned around, and drawn anew where that does not help.
        turned = -weight, -bias
        neurons = draft.made(weight, bias)
        for others in (turned, draft.spare):
            alive = self._learns(neurons.activations(self.measured.opt), new)
            if alive.all():
                break
            other, threshold = others() if callable(others) else others
            weight, bias = torch.where(alive, weight, other), torch.where(alive, bias, threshold)
            neurons = draft.made(weight, bias)
        return neurons

    def _learns(self, values: torch.Tensor, new: Addition) -> torch.Tensor:
        """Which new neurons have a gradient: they vary, and where a state that they feed would like to move."""
        flat = values.transpose(0, 1).flatten(1)
        return (flat.std(dim=1) > FLAT * flat.abs().amax(dim=1)) & self._felt(values, new)

    def _felt(self, values: torch.Tensor, new: Addition) -> torch.Tensor:
        """Which new neurons are not zero for some sample that a state they feed would like to move for."""
        count = values.shape[1]
        felt = torch.zeros(count)
        for target, edges in new.outgoing:
            sloped = self.measured.bottleneck(target).wanting
            for edge in edges:
                read = self._features(values, target, [edge])
                felt += (sloped @ (read != 0).float()).reshape(count, -1).sum(dim=1)
        return felt > 0

    def _alike(self, new: Addition) -> Sequence[tuple[StateView, tuple[Edge, ...]]]:
        """The fed states whose rows are those of the first one, so that they can be looked at together."""
        first = new.outgoing[0][0].shape.sizes[1:]
        return [(target, edges) for target, edges in new.outgoing if target.shape.sizes[1:] == first]

    def _features(self, values: torch.Tensor, target: StateView, edges: Sequence[Edge]) -> torch.Tensor:
        """What the new weights into a state multiply, (rows, features)."""
        places = self.measured.places(target.shape)
        return joined([design(e.op, chain(e.carriers, e.shape)(values), places) for e in edges])

    # -- outgoing weights ---------------------------------------------------------------------------------------------

    def _solve(self, neurons: Neurons | None, target: StateView, edges: tuple[Edge, ...]) -> Solved:
        measured = self.measured
        moments: tuple[Moment | None, Moment | None] = None, None
        if neurons is None:
            (edge,) = edges
            # What is there already has moments that other states and, of the data, other growths share.
            designs, moments = [measured.design(edge, target.shape)], measured.moments(edge, target)
        else:
            values = neurons.activations(measured.opt)
            designs = [self._features(values, target, [edge]) for edge in edges]
        bottleneck = measured.bottleneck(target)
        found = fit(bottleneck, joined(designs), self.config.ridge, *moments)
        sizes = [part.shape[1] for part in bottleneck.parts]
        existing = list(torch.split(found.existing.float(), sizes)) if sizes else []
        bias = existing.pop()[0] if target.moving_bias is not None else None
        blocks = torch.split(found.new.float(), [part.shape[1] for part in designs])
        return Solved(
            target,
            edges,
            found,
            tuple(as_weight(edge.op, block) for edge, block in zip(target.moving, existing, strict=True)),
            bias,
            tuple(as_weight(edge.op, block) for edge, block in zip(edges, blocks, strict=True)),
        )

    def _shift(self, solved: Solved, neurons: Neurons | None, part: Part) -> torch.Tensor:
        """How the move changes a fed state at amplitude one, on some samples."""
        values = neurons.activations(part) if neurons else None
        reads = [
            part.carried(edge) if values is None else chain(edge.carriers, edge.shape)(values) for edge in solved.edges
        ]
        known, target = solved.fit.known, solved.target
        if known is not None and target.shape.rank == 2 and known.shape[1] < target.width:
            # B (dW* - K omega) + F omega as B dW* + (F - B K) omega: fewer products, and the first is known.
            beyond = joined(reads) - combine(self.measured.sources(target, part), known)
            return self.measured.wished(target, part) + beyond @ solved.fit.new.float()
        total = torch.zeros_like(part.values[target.node])
        for edge, weight in zip(target.moving, solved.existing, strict=True):
            total += run_layer(edge.op, part.carried(edge), weight)
        if solved.bias is not None:
            total += along_channels(solved.bias, total)
        for edge, weight, read in zip(solved.edges, solved.new, reads, strict=True):
            total += run_layer(edge.op, read, weight)
        return total

    def _predicted(self, solved: Sequence[Solved], shifts: Sequence[torch.Tensor]) -> float:
        """First-order decrease of the mean loss at amplitude one, E[v . (change of the pre-activation)].

        On the line search part: on the one that was fitted to, weights look better than they are.
        """
        slopes = [self.measured.ls.slopes[each.target.node] for each in solved]
        each = [-(slope * shift).double().sum() for slope, shift in zip(slopes, shifts, strict=True)]
        return float(sum(each)) / len(self.measured.ls.targets)

    def _largest_amplitude(self, solved: Sequence[Solved], shifts: Sequence[torch.Tensor]) -> float:
        """How far the line search may go.

        The direction is a least-squares step: of the squared error, a mean over outputs, the whole of it is as many
        times v as there are outputs. Cross-entropy rewards ever larger outputs on the search part and pays later, so
        there the step itself is the limit. An inner state may move by its own size.
        """
        session = self.measured.session
        limits: list[float] = []
        for each, shift in zip(solved, shifts, strict=True):
            target = each.target
            if is_output(session.graph, target):
                scale = unit_of(session.objective)
                limits.append(1.0 if scale is None else target.width * self._unit(target, scale))
            else:
                size = float(self.measured.ls.values[target.node].double().square().mean().sqrt())
                move = float(shift.double().square().mean().sqrt())
                limits.append(max(size, 0.1) / max(move, 1e-30))
        return min(limits)

    def _unit(self, target: StateView, scale: torch.Tensor) -> float:
        """How many times the targets' standard deviation an output state is multiplied by less, squared.

        The desired update is -dL/da, and the whole least-squares step in units of the prediction's deviation: where the
        last node brings the targets' unit back, as in a network grown from nothing, the two cancel.
        """
        session, graph = self.measured.session, self.measured.session.graph
        name = target.node
        while name not in graph.outputs:
            (name,) = graph.consumers[name]
            op = graph[name].op
            if isinstance(op, Standardise):
                std = session.tensors[f"{name}.std"]
                scale = scale / std if op.inverse else scale * std
        return float(scale.square().max())

    def _updates(self, solved: Solved, amplitude: float) -> dict[str, torch.Tensor]:
        """What is added to the existing edges of a state that may change, as the joint solve says."""
        moves = {edge.weight: move for edge, move in zip(solved.target.moving, solved.existing, strict=True)}
        if solved.target.moving_bias is not None and solved.bias is not None:
            moves[solved.target.moving_bias] = solved.bias
        return {key: amplitude * move for key, move in moves.items()}

    def _with_values(
        self, candidate: Pass, new: Addition, neurons: Neurons | None, solved: Sequence[Solved], amplitude: float
    ) -> Pass:
        """The move with its weights."""
        values: dict[str, NDArray[np.float32]] = {}

        def put(key: str, tensor: torch.Tensor) -> None:
            values[key] = np.ascontiguousarray(tensor.numpy(), dtype=np.float32)

        if neurons is not None and new.incoming is not None:
            for edge, weight in zip(new.incoming.edges, neurons.incoming, strict=True):
                put(edge.weight, weight)
            for key, numbers in neurons.shifts.items():
                put(key, numbers)
        for each in solved:
            for edge, weight in zip(each.edges, each.new, strict=True):
                put(edge.weight, amplitude * weight)
        return candidate.model_copy(update={"values": values})
