"""Grow a student that imitates a random network: a wide one and a deep one, of which the better is kept."""

from __future__ import annotations

import torch

import growir
from growir.growth.observer import Observer
from growir.runs.records import Event, Growth, Selected
from growir.testing.teacher import teacher, teacher_student


def show(event: Event) -> None:
    """Print each growth as it is chosen."""
    if isinstance(event, Growth):
        print(f"{event.branch} {event.step}: {event.what}, {event.parameters} parameters")
    elif isinstance(event, Selected):
        print(f"kept what {event.branch} has grown")


def main() -> None:
    """Grow on what a teacher answers, and say which part of the variance the student misses."""
    torch.set_num_threads(1)  # layers this small only wait for each other on more
    data = teacher_student(seed=0, samples=1000)
    result = growir.grow(
        None,
        data,
        policy={"name": "dag", "strategy": "tournament", "neurons": 10, "activation": "selu"},
        train={"epochs_between": 10, "epochs_final": 40},
        budget={"steps": 6},
        name="student",
        observer=Observer(event=show),
    )
    summary = result.summary
    print(f"growing {summary['seconds_growing']:.2f} s of {summary['seconds']:.2f} s, {summary['ended']}")
    missed = summary["test_after_fit"]["mse"] / data["y_train"].var()
    print(f"student: {summary['parameters']} parameters, misses {100 * missed:.1f} % of the variance")
    print(f"teacher: {teacher().costs().parameters} parameters")


if __name__ == "__main__":
    main()
