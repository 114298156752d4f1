"""A law for growth policies as a ready-made test: one line puts a policy under test."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from growir.channels import analyse
from growir.document import dumps
from growir.graph import Graph
from growir.growth.budget import BudgetConfig, Cost
from growir.growth.config import parse_run
from growir.growth.given import Given
from growir.growth.observer import GrowthResult, Observer
from growir.growth.policy import Candidate, Policy, Score, name_of
from growir.growth.progress import Progress
from growir.growth.registry import checked_class
from growir.growth.running import start_run
from growir.growth.session import Session
from growir.network import Network
from growir.params import frozen_keys, param_table
from growir.rewrite import Pass
from growir.testing.laws import TOLERANCE, deviations, random_batch
from growir.testing.problems import Drawn, drawn_problems, same_bits, settings_of

EXAMPLES, LEAST = 20, 5  # a run takes as long as so many rewrites; and of few runs it may be that none grows
CLOCKS = {"seconds", "seconds_growing", "phases"}  # of events: what no two runs have alike


def policy_law(
    kind: type[Policy],
    *,
    settings: Mapping[str, Any] | None = None,
    graphs: st.SearchStrategy[Graph] | None = None,
    max_examples: int | None = None,
) -> Callable[[], None]:
    """A test, for pytest to collect, that a policy does what every policy must, on random graphs and data.

    Each example is a short run from a random network with frozen parameters, dropouts and a tight budget. Asserted are:

    - no growth goes beyond the budget, by one parameter, multiply-accumulate, unit or layer;
    - where the pass that was built promises to keep the function, outputs stay, to 1e-9 of the largest in float64;
    - the growth is all that changes weights, and what the history records is all of it: applied to the network before,
      it gives the network after, to the bit;
    - frozen parameters stay frozen, and training leaves them as they are, to the bit;
    - the optimizer trains every parameter that is not frozen, new ones too;
    - what is scored was proposed, and what is selected was scored;
    - a second run with the same seed has the same log and the same weights, whatever others draw from the global
      generators of torch, numpy and Python;
    - a run that is stopped anywhere, and goes on in another process from its run directory, ends at the same bits.

    The test fails where nothing grows in any example.

    Args:
        kind: The policy's class.
        settings: Its settings, if others than the default.
        graphs: What graphs are drawn from; if None, growir's own random ones.
        max_examples: How many runs are drawn; if None one for 20 examples of hypothesis's profile, and
            five at least.
    """
    checked_class(kind, getattr(kind, "__name__", repr(kind)))
    given_settings = dict(settings or {})

    def law() -> None:
        grown, runs = 0, 0

        @_settings(max_examples)
        @given(st.data())
        def on_one(data: st.DataObject) -> None:
            nonlocal grown, runs
            drawn: Drawn = data.draw(drawn_problems(graphs))
            runs += 1
            with _rebuildable(kind, drawn), tempfile.TemporaryDirectory() as folder:
                grown += _check_runs(kind, given_settings, drawn, Path(folder), data)

        on_one()
        assert grown, (
            f"{name_of(kind)}: nothing grew in {runs} runs on random graphs, so nothing of the policy is tested. Give "
            f"the law graphs on which it grows, as a hypothesis strategy: policy_law({kind.__name__}, graphs=...)."
        )

    return law


def _settings(max_examples: int | None) -> Callable[[Callable[[], None]], Callable[[], None]]:
    return settings(
        deadline=None,
        max_examples=max(LEAST, settings().max_examples // EXAMPLES) if max_examples is None else max_examples,
        suppress_health_check=(HealthCheck.filter_too_much, HealthCheck.data_too_large, HealthCheck.too_slow),
    )


@contextmanager
def _rebuildable(kind: type[Policy], drawn: Drawn) -> Generator[None]:
    """Add to every error a note with what the run was."""
    try:
        yield
    except Exception as error:
        error.add_note(f"The policy is {kind.__name__}, the budget {dict(drawn.budget)}, the seed {drawn.seed}.")
        error.add_note(f"growir.verify.load makes the graph again from this document:\n{dumps(drawn.network.graph)}")
        raise


def _check_runs(
    kind: type[Policy], given_settings: Mapping[str, Any], drawn: Drawn, folder: Path, data: st.DataObject
) -> int:
    """Run once under watch, once more, and once with a stop; the number of growths."""
    runner = _Runner(kind, given_settings, drawn)
    watch = _Watch(name_of(kind), runner.budget)
    first = runner.run(watch, noise=1)
    again = runner.run(_Watch(name_of(kind), runner.budget, checks=False), noise=2)
    _assert_same(name_of(kind), "a second run with the same seed", first, again)
    # Anywhere, or where a completed step has just been kept: what was known until then is what a run goes on without.
    anywhere, kept = st.integers(0, watch.moments - 1), st.sampled_from(watch.kept)
    stop = _Stop(data.draw(st.one_of(anywhere, kept), label="moment of the stop"))
    try:
        runner.run(stop, noise=3, out=folder / "run")
    except KeyboardInterrupt:
        pass  # ours, as a user's
    else:
        raise AssertionError(
            f"{name_of(kind)}: a second run had fewer moments than the first; what it does is not the same"
        )
    on = runner.run(_Watch(name_of(kind), runner.budget, checks=False), noise=4, out=folder / "run", resume=True)
    _assert_same(name_of(kind), f"a run that was stopped at {stop.where} and went on", first, on)
    return watch.growths


@dataclass(slots=True)
class _Runner:
    """Starts the same run again and again, with other numbers in the global generators."""

    kind: type[Policy]
    settings: Mapping[str, Any]
    drawn: Drawn

    @property
    def budget(self) -> BudgetConfig:
        return BudgetConfig.model_validate(dict(self.drawn.budget))

    def run(self, watch: _Moments, *, noise: int, out: Path | None = None, resume: bool = False) -> GrowthResult:
        drawn = self.drawn
        watched = watch.watched(self.kind)
        policies = Given(kinds={name_of(self.kind): watched})
        section = {**self.settings, "name": name_of(self.kind)}
        config = parse_run(settings_of(drawn, section), "policy_law", policies.known)
        with _other_global_numbers(noise):
            return start_run(
                config,
                drawn.problem,
                drawn.network,
                policies=policies,
                out=out,
                resume=resume,
                observer=watch.observer(),
            )


@contextmanager
def _other_global_numbers(seed: int) -> Generator[None]:
    """Seed the global generators, which no policy may read, and give them back as they were."""
    kept = random.getstate(), np.random.get_state()  # noqa: NPY002  # they are what is guarded here
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])  # noqa: NPY002


# -- watching ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Moments:
    """Counts the moments of a run at which it can be stopped.

    Attributes:
        moments: How many there were.
        kept: Which of them were checkpoints, counted from 0.
    """

    moments: int = field(default=0, init=False)
    kept: list[int] = field(default_factory=list[int], init=False)

    def pass_by(self, where: str) -> None:
        """One more moment."""
        self.moments += 1

    def watched(self, kind: type[Policy]) -> type[Policy]:
        """The policy, watched."""
        return kind

    def observer(self) -> Observer:
        return Observer(
            event=lambda event: self.pass_by(f"event {event.event}"),
            accepted=self.accepted,
            checkpoint=self.checkpoint,
            tick=lambda phase, done, total: self.pass_by(f"batch {done} of {phase}"),
        )

    def accepted(self, step: int, graph: Graph) -> None:
        self.pass_by(f"growth {step}")

    def checkpoint(self, session: Session, progress: Progress) -> None:
        self.kept.append(self.moments)
        self.pass_by(f"the checkpoint of growth {progress.step}")


@dataclass(slots=True, eq=False)
class _Stop(_Moments):
    """Stops a run at one of its moments, as a user does."""

    at: int
    where: str = field(default="", init=False)

    def pass_by(self, where: str) -> None:
        self.moments += 1
        if self.moments == self.at + 1:
            self.where = where
            raise KeyboardInterrupt


@dataclass(slots=True, eq=False)
class _Watch(_Moments):
    """Looks at each growth of a run.

    Attributes:
        policy: The policy's name.
        limits: Of the run.
        checks: Whether it looks, or only counts.
        growths: How many there were.
    """

    policy: str
    limits: BudgetConfig
    checks: bool = True
    growths: int = field(default=0, init=False)
    _session: Session | None = field(default=None, init=False)
    _before: Network | None = field(default=None, init=False)
    _after: Network | None = field(default=None, init=False)
    _built: Pass | None = field(default=None, init=False)
    _proposed: Sequence[Candidate] = field(default=(), init=False)
    _scores: Sequence[Score] = field(default=(), init=False)

    def watched(self, kind: type[Policy]) -> type[Policy]:
        return _watched(kind, self) if self.checks else kind

    # -- what the policy is asked --

    def proposed(self, session: Session, found: Sequence[Candidate], before: Network) -> None:
        self._session, self._before, self._proposed = session, before, found
        _assert_trained(f"{self.policy}, what it proposes for growth {self.growths + 1}", session)

    def scored(self, found: Sequence[Score]) -> None:
        names = {candidate.name for candidate in self._proposed}
        strange = [score.candidate.name for score in found if score.candidate.name not in names]
        assert not strange, f"{self.policy}: it scores {strange[0]!r}, which it did not propose"
        self._scores = found

    def selected(self, found: Sequence[Score]) -> None:
        names = {score.candidate.name for score in self._scores}
        strange = [score.candidate.name for score in found if score.candidate.name not in names]
        assert not strange, f"{self.policy}: it selects {strange[0]!r}, which it did not score"

    def built(self, session: Session, step: Pass) -> None:
        self._built = step
        assert self._before is not None, "a policy proposes before it builds"
        changed = session.network()
        assert same_bits(self._before.arrays, changed.arrays), (
            f"{self.policy}, growth {self.growths + 1}: weights changed while it proposed, scored, selected or built; "
            "what changes them must be a part of the pass (Update), or a replay of the history would not have it"
        )

    # -- what happens --

    def accepted(self, step: int, graph: Graph) -> None:
        self.pass_by(f"growth {step}")
        if self._built is None or self._before is None or self._session is None:
            return
        built, self._built = self._built, None
        self.growths += 1
        where = f"{self.policy}, growth {step}, {built.name}"
        self._after = after = self._session.network()
        _assert_within(where, self.limits, self._before.graph, after.graph)
        _assert_kept(where, built, self._before)
        _assert_recorded(where, built, self._before, after)
        _assert_still_frozen(where, built, self._before.graph, after.graph)
        _assert_trained(where, self._session)

    def checkpoint(self, session: Session, progress: Progress) -> None:
        self.kept.append(self.moments)
        self.pass_by(f"the checkpoint of growth {progress.step}")
        if not self.checks or self._after is None:
            return
        _assert_trained(f"{self.policy}, after growth {progress.step}", session)
        now = session.network()
        if now.graph.hash != self._after.graph.hash:  # a growth was taken back, or another branch began
            self._after = now
            return
        for key in frozen_keys(self._after.graph):
            assert np.array_equal(now.arrays[key], self._after.arrays[key], equal_nan=True), (
                f"{self.policy}, after growth {progress.step}: training has changed {key}, which is frozen"
            )


def _watched(kind: type[Policy], watch: _Watch) -> type[Policy]:
    """A subclass that tells `watch` what it is asked and answers."""
    plain: Any = kind

    def propose(self: Any, session: Any, budget: Any) -> Any:
        before = session.network()
        found = plain.propose(self, session, budget)
        watch.proposed(session, found, before)
        return found

    def score(self: Any, session: Any, candidates: Any, key: int) -> Any:
        found = plain.score(self, session, candidates, key)
        watch.scored(found)
        return found

    def select(self: Any, session: Any, scores: Any, budget: Any) -> Any:
        found = plain.select(self, session, scores, budget)
        watch.selected(found)
        return found

    def build(self: Any, session: Any, chosen: Any) -> Any:
        found = plain.build(self, session, chosen)
        watch.built(session, found)
        return found

    return type(kind.__name__, (kind,), {"propose": propose, "score": score, "select": select, "build": build})


# -- what must hold ---------------------------------------------------------------------------------------------------


def _assert_within(where: str, limits: BudgetConfig, before: Graph, after: Graph) -> None:
    """Nothing is beyond the budget, counted anew."""
    old, new = _cost(before), _cost(after)
    found = {"parameters": (new.parameters, limits.parameters), "macs": (new.macs, limits.macs)}
    each = limits.per_growth
    if each is not None:
        found |= {f"{name} per growth": (getattr(new - old, name), getattr(each, name)) for name in COSTS}
        if each.share is not None:
            found["share per growth"] = ((new - old).parameters, int(each.share * old.parameters))
    for what, (has, most) in found.items():
        assert most is None or has <= most, f"{where}: it goes beyond the budget: {has} {what}, at most {most}"


COSTS = ("parameters", "macs", "units", "layers")


def _cost(graph: Graph) -> Cost:
    return replace(Cost.of(graph), units=sum(space.units for space in analyse(graph).spaces))


def _assert_kept(where: str, step: Pass, before: Network) -> None:
    """Outputs are what they were, where the pass promises so."""
    wide = Network(before.graph, {key: _wide(array) for key, array in before.arrays.items()}, before.values)
    for found in deviations(step, wide, random_batch(before.graph)):
        mode = "train" if found.train else "eval"
        assert found.gradient or found.error <= TOLERANCE, (
            f"{where}: the pass promises {step.preserves(before.graph)}, but output {found.name} changed by "
            f"{found.error:.1e} in {mode} mode"
        )


def _wide(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _assert_recorded(where: str, step: Pass, before: Network, after: Network) -> None:
    """The pass, applied anew, gives the graph and the weights that there are."""
    replayed = before.apply(step)
    assert replayed.graph.hash == after.graph.hash, f"{where}: the pass, applied anew, gives another graph"
    # Running statistics are taken anew around a growth (`Session.recalibrate`); a pass says nothing of them.
    table, norms = param_table(after.graph), {node.name for node in after.graph.nodes if node.op.over_batch}
    said = [key for key in replayed.arrays if not (table[key].buffer and key.rpartition(".")[0] in norms)]
    differ = [key for key in said if not np.array_equal(replayed.arrays[key], after.arrays[key], equal_nan=True)]
    assert not differ, f"{where}: the pass, applied anew, gives other numbers in {differ[0]}"


def _assert_still_frozen(where: str, step: Pass, before: Graph, after: Graph) -> None:
    """What was frozen is, or is gone."""
    free = frozen_keys(before) & set(param_table(after)) - frozen_keys(after)
    assert not free, f"{where}: it unfreezes {sorted(free)[0]}"


def _assert_trained(where: str, session: Session) -> None:
    """The optimizer has what the graph does not freeze, each once, and nothing else."""
    held = [id(parameter) for group in session.optimizer.param_groups for parameter in group["params"]]
    still = frozen_keys(session.graph)
    learned = {key: t for key, t in session.tensors.items() if not param_table(session.graph)[key].buffer}
    for key, tensor in learned.items():
        assert tensor.requires_grad == (key not in still), (
            f"{where}: {key} {'requires a gradient, though the graph freezes it' if key in still else 'does not learn'}"
        )
        assert held.count(id(tensor)) == (key not in still), (
            f"{where}: the optimizer has {key} {held.count(id(tensor))} times"
        )


def _assert_same(policy: str, what: str, first: GrowthResult, other: GrowthResult) -> None:
    """Two runs have the same log and the same weights."""
    logs = [[_without_clocks(event.to_json()) for event in result.events] for result in (first, other)]
    for k, (a, b) in enumerate(zip(*logs, strict=False)):
        assert a == b, f"{policy}: {what} differs in event {k}:\n{a}\n{b}"
    assert len(logs[0]) == len(logs[1]), f"{policy}: {what} has {len(logs[1])} events, not {len(logs[0])}"
    for a, b in ((first.grown, other.grown), (first.network, other.network)):
        assert a.graph.hash == b.graph.hash, f"{policy}: {what} ends at another graph"
        assert same_bits(a.arrays, b.arrays), f"{policy}: {what} ends at other weights"


def _without_clocks(event: Any) -> Any:
    if isinstance(event, dict):
        fields = cast("dict[str, Any]", event)
        return {key: _without_clocks(value) for key, value in fields.items() if key not in CLOCKS}
    return [_without_clocks(each) for each in cast("list[Any]", event)] if isinstance(event, list | tuple) else event
