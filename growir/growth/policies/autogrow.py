"""AutoGrow (Wen et al. 2020): stages become deeper in turn, each until its last block has brought nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from numpy.typing import NDArray
from pydantic import field_validator

from growir.errors import GrowirError, RunError, cut
from growir.families import network
from growir.graph import Graph
from growir.growth.budget import Budget
from growir.growth.circle import Circle, circle, unrewarded
from growir.growth.data import one_scale
from growir.growth.measure.stacking import drawn, learned_alone, next_block
from growir.growth.policy import Candidate, PolicySettings, Score, Trimmed
from growir.growth.schedule import Measure, NoneOrMore
from growir.growth.sections import Count, NonNegative, Word
from growir.nearest import alternatives
from growir.network import Network
from growir.passes import Stack, Unstack
from growir.rewrite import Pass
from growir.stages import Stage, stages_of

if TYPE_CHECKING:
    from growir.growth.config import RunConfig
    from growir.growth.problem import Problem
    from growir.growth.session import Session

Initialiser = Literal["default", "zero", "adam", "uniform", "gaussian"]
ADAM_EPOCHS = 10  # at most, of the phase that trains the last norm alone (section 2.2)


class AutoGrowSettings(PolicySettings):
    """One block more at the end of a stage, the stages in turn, until that brings nothing.

    Attributes:
        name: AutoGrow: stages become deeper in turn, until that brings nothing.
        net: What growth begins with where no network is given: a family, such as "Basic3ResNet", with one block in each
            stage, or with as many as are said, "Plain3Net-2-2-2".
        width: Channels of its first stage. By default 16 for three stages and 64 for four.
        stages: The names of the stages that grow, as `growir inspect` lists them. By default all.
        initialiser: How the last norm of a new block starts, where the block adds to what it reads: "zero", so that the
            function stays; "adam", trained alone before all goes on; "uniform" or "gaussian" by chance, with std 1; or
            "default", as ever. All other weights are new. A block without a shortcut starts with "default" whatever is
            said, but cannot with "zero" or "adam".
        copy_weights: Whether all other weights are those of the block before it.
        window: Epochs in which something must have been gained for a stage to go on growing (the paper's J); 0 for
            those since the last growth, as in convergent growth.
        by: What counts as something, of the accuracy or of the loss (the paper's tau).
        measure: What is looked at on the data that selects, "accuracy" or "loss". By default accuracy of classes.
        deepest: The most blocks of a stage.
        shrink: Whether the block that brought nothing goes again when its stage is closed for that.
    """

    name: str = "autogrow"
    net: Word = "Basic3ResNet"
    width: Count | None = None
    stages: tuple[Word, ...] | None = None
    initialiser: Initialiser = "gaussian"
    copy_weights: bool = False
    window: NoneOrMore = 30
    by: NonNegative = 0.0005
    measure: Measure | None = None
    deepest: Count = 1000
    shrink: bool = False

    @field_validator("stages")
    @classmethod
    def _each_once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        twice = [name for name in value or () if (value or ()).count(name) > 1]
        if twice or value == ():
            raise ValueError(f"{twice[0]!r} is there twice; name each stage once" if twice else "name a stage at least")
        return value

    @property
    def reads_maps(self) -> bool:
        return True

    @property
    def ends_growth(self) -> bool:
        return True

    @property
    def usual_schedule(self) -> Mapping[str, Any]:
        return {"name": "periodic", "epochs": 3, "window": 0}


class AutoGrow:
    """The policy; see AutoGrowSettings."""

    name: ClassVar[str] = "autogrow"
    Settings: ClassVar[type[PolicySettings]] = AutoGrowSettings

    def __init__(self, settings: AutoGrowSettings) -> None:
        self.settings = settings

    def start(self, problem: Problem, config: RunConfig, chosen: Mapping[str, Any] | None = None) -> Network:
        """The seed: the family's network with one block in each stage."""
        data = problem.dataset
        if data is None:
            raise RunError(
                "policy autogrow: nothing says how many classes there are; give a network, growir.grow(network, data)"
            )
        if data.task != "classification":
            raise RunError(f"policy autogrow: {self.settings.net} tells classes, but the targets are amounts")
        try:
            graph = network(
                self.settings.net,
                data.x_train.shape[1:],
                data.outputs,
                width=self.settings.width,
                standardised=config.data.standardise != "none",
            )
        except GrowirError as error:
            raise RunError(f"policy autogrow: {error}") from None
        return one_scale(Network.init(graph.replace(name=config.name), config.seed), data.x_train)

    def select_start(self, session: Session) -> None:
        """Nothing is to select."""
        return

    def check(self, session: Session) -> None:
        """Refuse a network without stages, stages that are not there, and an initialiser that a stage cannot have."""
        stages = self._stages(session.graph)
        if not stages:
            raise RunError(
                f"policy autogrow: the network {cut(session.graph.name)!r} has no stages, runs of equal blocks; "
                "docs/stages.md says how they are found"
            )
        schedule = session.config.schedule
        epochs = getattr(schedule, "epochs", None)
        if schedule.name == "periodic" and 0 < self.settings.window < (epochs or 1):
            raise RunError(
                f"policy autogrow: window is {self.settings.window}, less than the {epochs} epochs between two growths"
                "; make it longer, or 0 for all epochs since the last growth"
            )
        for stage in stages.values():
            step = next_block(session.graph, stage, session.seed)
            if self.settings.initialiser not in ("zero", "adam"):
                continue
            keys = step.identity(session.graph)
            if isinstance(keys, str):
                raise RunError(
                    f"policy autogrow: initialiser {self.settings.initialiser!r} needs residual blocks, but in stage "
                    f'{cut(stage.name)} {keys}; with "default" new blocks start as ever'
                )
        if all(stage.depth >= self.settings.deepest for stage in stages.values()):
            raise RunError(f"policy autogrow: deepest is {self.settings.deepest}, and no stage has fewer blocks")

    def _stages(self, graph: Graph) -> dict[str, Stage]:
        """The stages that grow, by name. Raises RunError if there is none of a name that is said."""
        found = {stage.name: stage for stage in stages_of(graph)}
        if self.settings.stages is None:
            return found
        for name in self.settings.stages:
            if name not in found:
                raise RunError(
                    f"policy autogrow: there is no stage {cut(name)!r} in the network.{alternatives(name, found)}"
                )
        return {name: stage for name, stage in found.items() if name in self.settings.stages}

    def propose(self, session: Session, budget: Budget) -> list[Candidate]:
        """The next block of the stage whose turn it is, or of the first behind it that can have one."""
        stages = self._stages(session.graph)
        for name in self._circle(session, stages).turns():
            step = self._step(session, stages[name])
            if stages[name].depth < self.settings.deepest and budget.fits(step):
                return [Candidate(name, budget.cost(step), step)]
        return []

    def _circle(self, session: Session, stages: Iterable[str]) -> Circle:
        settings = self.settings
        measure = settings.measure or ("accuracy" if session.problem.task == "classification" else "loss")
        return circle(
            session.log, tuple(stages), lambda entries: unrewarded(entries, measure, settings.window, settings.by)
        )

    def _step(self, session: Session, stage: Stage) -> Stack:
        return next_block(session.graph, stage, session.seed, copy_weights=self.settings.copy_weights)

    def skipped(self, session: Session) -> Mapping[str, str]:
        """Stages that have their most blocks."""
        deep = (stage for stage in self._stages(session.graph).values() if stage.depth >= self.settings.deepest)
        return {stage.name: f"it has {stage.depth} blocks, the most" for stage in deep}

    def score(self, session: Session, candidates: Sequence[Candidate], key: int) -> list[Score]:
        """Nothing is predicted."""
        return [Score(candidate, 0.0, ordinal=True) for candidate in candidates]

    def select(self, session: Session, scores: Sequence[Score], budget: Budget) -> list[Score]:
        """The one."""
        return list(scores)

    def build(self, session: Session, chosen: Sequence[Score]) -> Pass:
        """The block, with what its last norm starts with."""
        step: Stack = chosen[0].candidate.part
        if not step.exact:
            return step  # without a shortcut nothing starts apart
        keys = step.identity(session.graph)
        assert not isinstance(keys, str), "it is exact"
        initialiser, key = self.settings.initialiser, len(session.graph.history.steps) if session.graph.history else 0
        if initialiser == "zero":
            return step
        step = step.model_copy(update={"exact": False})
        if initialiser == "default":
            return step
        values: Mapping[str, NDArray[Any]]
        if initialiser == "adam":
            values = learned_alone(session, step, keys, ADAM_EPOCHS, key)
        else:
            values = drawn(session.graph, step, keys, initialiser, session.seed, key)
        return step.model_validate({**dict(step), "values": values})

    def trim(self, session: Session, budget: Budget) -> Trimmed | None:
        """The last block of a stage that is closed because that block has brought nothing, where `shrink` says so."""
        if not self.settings.shrink:
            return None
        stages = self._stages(session.graph)
        barren = self._circle(session, stages).barren
        if barren is None:
            return Trimmed((), (), None)
        block = stages[barren].blocks[-1]
        step = Unstack(block=block.nodes, input=block.input)
        gone = [Score(Candidate(barren, budget.cost(step), step), 0.0, ordinal=True)]
        return Trimmed(gone, gone, step, "a block that brought nothing goes again, and its stage grows no more")
