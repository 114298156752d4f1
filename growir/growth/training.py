"""The phases of training of a run: between growths, the final fit, and the short ones that choices are made by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from growir.data.shuffling import Shuffle
from growir.data.source import Source
from growir.growth.config import KEEP, TrainConfig
from growir.growth.fit import fit
from growir.growth.optimizing import make
from growir.growth.phase import Fitted, Hooks, Position
from growir.growth.policy import Trains
from growir.growth.rates import schedule
from growir.growth.recipe import RateConfig, Recipe
from growir.growth.schedule import Train
from growir.params import initial_arrays

if TYPE_CHECKING:  # which asks for a phase of a policy's own itself
    from growir.growth.session import Session

ONE_CYCLE = RateConfig(name="one_cycle")


@dataclass(frozen=True, slots=True)
class Span:
    """What a schedule of rates spans where that is more than one phase.

    Attributes:
        total: Steps of the optimizer in all; None where nobody knows.
        done: Steps before this phase.
        grown: Steps before the last growth; None before the first.
    """

    total: int | None = None
    done: int = 0
    grown: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Keeping:
    """How a phase goes on and is kept while it runs.

    Attributes:
        start: Where to go on; None is the beginning.
        save: Gets the position after each epoch, and each so many steps; None keeps nothing before the end.
        policy: The policy, which may surround the phase.
    """

    start: Position | None = None
    save: Callable[[Position], None] | None = None
    policy: object = field(default=None)


def recipe_of(config: TrainConfig, phase: Train) -> Recipe:
    """The recipe of a phase between growths."""
    epochs = phase.epochs or (None if phase.steps else config.epochs_between or 1)
    return Recipe(
        epochs=epochs,
        steps=None if epochs else phase.steps,
        batch_size=config.batch_size or 64,
        rate=config.rate,
        clip=config.clip,
        amp=config.amp,
        accumulate=config.accumulate,
        stopping=config.stopping,
    )


def steps_of(session: Session, epochs: int) -> int | None:
    """The steps of the optimizer in so many epochs on what is trained on between growths."""
    config, batches = session.train_config, session.batch_count(session.data.train)
    return None if batches is None else epochs * -(-batches // config.accumulate)


def train_between(session: Session, phase: Train, key: tuple[int, ...], span: Span, keeping: Keeping) -> Fitted:
    """Train on what is trained on between growths; the optimizer goes on from where it is.

    Where nothing learns, this only says the loss.

    Args:
        session: The network; its optimizer is made anew only if it has none.
        phase: How long.
        key: Of all draws.
        span: Of the rates.
        keeping: How it goes on and is kept.
    """
    if not session.learned:
        return Fitted(session.measure(session.data.train).metrics["loss"], 0, 0, stopped=False)
    recipe = recipe_of(session.train_config, phase)
    batches = session.batch_count(session.data.train)
    start = keeping.start or Position()
    whole = span.total is not None
    scheduler = schedule(
        session.optimizer,
        recipe.rate,
        span.total if whole else recipe.all_steps(batches),
        step=start.steps + (span.done if whole else 0),
        grown=span.grown if whole else (None if span.grown is None else span.grown - span.done),
    )
    return _phase(session, session.data.train, session.optimizer, recipe, key, "training", scheduler, keeping)


def starts_of(config: TrainConfig) -> tuple[float, ...]:
    """What each matrix is multiplied with as a fit begins; several where trials are to find the best."""
    return (1.0, KEEP) if config.keep_final == "found" else (config.keep_final or 1.0,)


def train_final(session: Session, phase: Train, keeping: Keeping, keep: float | None = None) -> Fitted:
    """Fit on all training data: from the grown weights or new ones, with a new optimizer, on a one-cycle schedule.

    Args:
        session: Its network is fitted.
        phase: How long.
        keeping: How it goes on and is kept.
        keep: What each matrix is multiplied with before; as [train] says if None.
    """
    keep, epochs = keep or starts_of(session.train_config)[0], phase.epochs or session.train_config.epochs_final or 1
    return _anneal(session, session.data.everything(), epochs, keep, (2,), "final fit", keeping)


def trial_epochs(config: TrainConfig) -> int:
    """How long a trial fit is, where nobody says."""
    return config.epochs_trial or config.epochs_final or 1


def train_trial(session: Session, epochs: int, keep: float, *key: int) -> Fitted:
    """The same on what is trained on between growths, so that the rest can tell which of several networks is best.

    Draws have a key that begins with the number of the branch.
    """
    return _anneal(session, session.data.train, epochs, keep, (5, *key), "trial fit", Keeping())


def fit_anew(session: Session, epochs: int, which: int) -> Fitted:
    """Fit new weights on what is trained on between growths, on a one-cycle schedule; `which` keys draws."""
    return _anneal(session, session.data.train, epochs, 1.0, (6, which), "choosing inputs", Keeping(), new=True)


def train_by(session: Session, recipe: Recipe, key: tuple[int, ...]) -> Fitted:
    """Train on what is trained on between growths under a recipe of a policy's own; `key` keys the draws."""
    rates = schedule(session.optimizer, recipe.rate, recipe.all_steps(session.batch_count(session.data.train)))
    return _phase(session, session.data.train, session.optimizer, recipe, (9, *key), "training", rates, Keeping())


def _anneal(
    session: Session,
    source: Source,
    epochs: int,
    keep: float,
    key: tuple[int, ...],
    what: str,
    keeping: Keeping,
    *,
    new: bool = False,  # whether the weights are so already
) -> Fitted:
    config = session.train_config
    if not session.learned:  # as between growths, this only says the loss
        return Fitted(session.measure(source).metrics["loss"], 0, 0, stopped=False)
    if keeping.start is None:
        if config.weights_final == "new" and not new:
            _begin_anew(session)
        with torch.no_grad():
            for parameter in session.learned.values():
                if parameter.ndim > 1:
                    parameter.mul_(keep)
        session.optimizer = make(
            session.learned,
            session.optimizing,
            rate=config.learning_rate_final,
            weight_decay=config.weight_decay,
        )
    recipe = Recipe(
        epochs=epochs,
        batch_size=config.batch_size or 64,
        rate=ONE_CYCLE,
        clip=config.clip,
        amp=config.amp,
        accumulate=config.accumulate,
    )
    steps = recipe.all_steps(session.batch_count(source))
    done = 0 if keeping.start is None else keeping.start.steps
    scheduler = schedule(session.optimizer, recipe.rate, steps, step=done)
    return _phase(session, source, session.optimizer, recipe, key, what, scheduler, keeping)


def _begin_anew(session: Session) -> None:
    """Draw all learned weights from their initialisers, and take statistics of norms anew with them."""
    drawn = initial_arrays(session.graph, session.seed)
    with torch.no_grad():
        for key, parameter in session.learned.items():
            parameter.copy_(torch.from_numpy(drawn[key]))
    session.recalibrate(2)


def _phase(
    session: Session,
    source: Source,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    key: tuple[int, ...],
    what: str,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None,
    keeping: Keeping,
) -> Fitted:
    # Two operations a multiply-accumulate, as many again for each of the two gradients.
    session.meter.count(6.0 * session.graph.costs().macs * recipe.seen(len(source)))
    ready = session.reading.ready(source)
    shuffle = Shuffle((session.seed, *key))
    select, policy = session.data.select, keeping.policy
    assert select is not None, "the data is cut"

    def measured() -> float:
        return session.measure(select, session.config.policy.samples).metrics["loss"]

    surrounding: dict[str, Any] = {}
    if isinstance(policy, Trains):
        held = policy
        surrounding = {"around": lambda: held.around(session), "after_step": lambda: held.after_step(session)}
    every = session.train_config.checkpoint
    return fit(
        ready.module,
        session.objective,
        ready.source,
        optimizer,
        recipe,
        shuffle=shuffle,
        scheduler=scheduler,
        feed=ready.feed,
        draws=session.draws,
        device=session.device,
        start=keeping.start,
        hooks=Hooks(
            tick=lambda done, total: session.tick(what, done, total),
            epoch=lambda done, total, loss: session.epoch(what, done, total, loss),
            measure=measured,
            checkpoint=keeping.save,
            every=every if isinstance(every, int) else None,
            **surrounding,
        ),
        phase=what,
    )
