"""Training of hand-written modules as growir trains what it grows, and phases of a session without a run."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from growir.data.memory import ArraySource
from growir.data.shuffling import Shuffle
from growir.growth.config import TrainConfig
from growir.growth.fit import fit
from growir.growth.objective import Objective
from growir.growth.optimizing import make
from growir.growth.rates import schedule
from growir.growth.recipe import RateConfig, Recipe
from growir.growth.schedule import Train
from growir.growth.session import Session
from growir.growth.training import Keeping, Span, train_between, train_final


def fit_module(
    module: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    objective: Objective,
    source: ArraySource,
    config: TrainConfig,
    *,
    epochs: int,
    seed: int,
    final: bool = False,
) -> None:
    """Train a module in place.

    Args:
        module: It.
        parameters: Those that learn, by key.
        objective: What is minimised.
        source: What is trained on.
        config: Batch size, rates and weight decay.
        epochs: Passes over the data.
        seed: Of the orders.
        final: Whether the rate goes as in the final fit, else it is constant, as between growths.
    """
    batch, rate = config.batch_size or 64, config.learning_rate_final if final else config.learning_rate
    recipe = Recipe(epochs=epochs, batch_size=batch, rate=RateConfig(name="one_cycle" if final else "constant"))
    optimizer = make(parameters, rate=rate, weight_decay=config.weight_decay)
    scheduler = schedule(optimizer, recipe.rate, recipe.all_steps(-(-len(source) // batch)))
    fit(module, objective, source, optimizer, recipe, shuffle=Shuffle((seed,)), scheduler=scheduler)


def between(session: Session, step: int) -> None:
    """Train as a run does after so many growths."""
    train_between(session, Train(), (1, step), Span(), Keeping())


def final_fit(session: Session) -> None:
    """Fit as a run does at its end."""
    train_final(session, Train(fit="final"), Keeping())
