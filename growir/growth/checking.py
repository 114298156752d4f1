"""What a policy gives the engine, looked at before it is used: a mistake of its author ends the run with a reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from growir.errors import PassRefused, RunError, cut
from growir.growth.budget import Budget
from growir.growth.contest import Branch
from growir.growth.policy import Candidate, Checks, Policy
from growir.growth.schedule import Named
from growir.growth.session import Session
from growir.live.report import Report
from growir.rewrite import Pass, Preserves


def check_policies(session: Session, branches: Iterable[Branch]) -> None:
    """Have each policy of a run refuse what it cannot grow.

    Raises RunError if one does, or if length or start of the final fit are to be tried without trials.
    """
    schedule = session.config.schedule
    if schedule.lengths and not schedule.trials:
        raise RunError(
            "[schedule] lengths = true: lengths are tried of the network that trials choose; set trials = 2.0 too"
        )
    if session.config.train.keep_final == "found" and not (schedule.trials or isinstance(schedule, Named)):
        raise RunError(
            '[train] keep_final = "found": trials find what the final fit starts from; set [schedule] trials = 2.0 '
            "too, or give a number"
        )
    for branch in branches:
        if isinstance(branch.policy, Checks):
            branch.policy.check(session)


def checked_candidates(policy: Policy, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """The candidates, if each has a name of its own. Raises RunError if not."""
    seen: set[str] = set()
    for candidate in candidates:
        if candidate.name in seen:
            raise RunError(f"policy {policy.name}: two of its candidates are called {cut(candidate.name)!r}; name each")
        seen.add(candidate.name)
    return candidates


def checked_pass(policy: Policy, step: object, budget: Budget) -> Pass:
    """What a policy built, if it fits graph and budget. Raises RunError if not."""
    if not isinstance(step, Pass):
        raise RunError(f"policy {policy.name}: build gives {type(step).__name__}, but a pass is needed")
    try:
        over = budget.excess(step)
    except PassRefused as error:
        raise RunError(f"policy {policy.name}: what it built does not fit the network: {error}") from None
    if over > 0:
        cost, room = budget.cost(step), budget.room
        raise RunError(
            f"policy {policy.name}: what it built goes beyond the budget: it adds {cost.parameters} parameters and "
            f"{cost.macs} macs where there is room for {room.parameters} and {room.macs}; ask budget.fits before"
        )
    return step


def applied(policy: Policy, session: Session, step: Pass, steps: int) -> Report:
    """Grow by what a policy built.

    Raises:
        RunError: It moves outputs that it promises to keep, or outputs are not finite after it. Nothing has changed.
    """
    try:
        return session.grow(step, steps)
    except PassRefused as error:
        built = f"policy {policy.name}: {cut(step.name)}, which it built,"
        if step.preserves(session.graph) not in (Preserves.EXACT, Preserves.EVAL):
            raise RunError(f"{built} cannot be applied: {error}; the network stays as it was") from None
        raise RunError(
            f"{built} promises that the function is kept"
            f" ({step.preserves(session.graph)}), but it is not: {error}; mend the pass, or let its preserves say less"
        ) from None
