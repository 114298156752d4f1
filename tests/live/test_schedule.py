"""When a run grows: shares of its budget, rules about its loss, checkpoints, and two ways from one point."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from growir import live
from growir.costs import costs_of
from growir.errors import ModelError
from growir.graph import Graph, Input, Node
from growir.live import Growth, Plateau, Progress, Schedule, Slope
from growir.ops import Embedding, Linear
from growir.passes import Sequence, Widen, clone
from tests.live.training import module_of, one_step
from tests.samples import mlp

WIDER = Widen(node="fc1", by=2)


def trained(module: nn.Module, schedule: Schedule, steps: int) -> tuple[nn.Module, list[int]]:
    """The module after some steps, and those behind which it grew."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    grew: list[int] = []
    for k in range(steps):
        one_step(module, optimizer, (torch.randn(5, 3, dtype=torch.float64),))
        module, report = schedule.step(module, optimizer, samples=5)
        grew += [k] * (report is not None)
    return module, grew


def test_growths_are_due_at_shares_of_the_compute_that_the_document_counts() -> None:
    module: nn.Module = module_of(mlp())
    macs = costs_of(mlp()).macs
    assert macs == 3 * 4 + 4 * 2
    schedule = Schedule([Growth(0.25, WIDER), Growth(0.5, lambda graph: clone(graph, 2))], budget=6 * macs * 5 * 20)
    module, grew = trained(module, schedule, 5)
    assert grew == [4]
    assert schedule.share == pytest.approx(0.25)
    # Six units of five numbers each where there were four: each step is worth one and a half.
    module, grew = trained(module, schedule, 4)
    assert grew == [3]
    assert schedule.share == pytest.approx(0.25 + 0.05 * 1.5 * 4)
    assert schedule.grown == [pytest.approx(0.25), pytest.approx(0.55)]
    assert live.network_of(module).graph["fc1"].op.out_features == 12  # type: ignore[attr-defined]
    assert not schedule.ended
    trained(module, schedule, 10)
    assert schedule.ended


def test_tokens_are_the_entries_of_an_input_of_whole_numbers() -> None:
    ids = Input(name="ids", shape=("N", 6), dtype="int64")
    nodes = (
        Node(name="emb", op=Embedding(num_embeddings=9, embedding_dim=4), inputs=("ids",)),
        Node(name="head", op=Linear(out_features=9), inputs=("emb",)),
    )
    graph = Graph(name="tokens", inputs=(ids,), nodes=nodes, outputs=("head",))
    module = module_of(graph)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for unit, wanted in (("compute", 6.0 * costs_of(graph).macs * 3), ("tokens", 18.0), ("steps", 1.0)):
        for counted in ({"tokens": 18}, {"samples": 3}):
            schedule = Schedule([], budget=1e9, unit=unit)  # type: ignore[arg-type]
            schedule.step(module, optimizer, **counted)
            assert schedule.spent == wanted


def test_the_rate_warms_up_stays_and_decays_by_what_is_spent() -> None:
    schedule = Schedule([], budget=100, unit="steps", warmup=0.1, decay=0.3)
    found = []
    module = module_of(mlp())
    for _ in range(100):
        schedule.step(module, torch.optim.SGD(module.parameters(), lr=0.1))
        found.append(schedule.factor())
    assert found[4] == pytest.approx(0.5)
    assert found[9:70] == [1.0] * 61
    assert found[84] == pytest.approx(0.5)
    assert found[99] == 0.0


@pytest.mark.parametrize(
    ("rule", "due"),
    [(Plateau(window=0.2, least=0.01), 0.5), (Slope(below=0.1, window=0.2), 0.5)],
    ids=["plateau", "slope"],
)
def test_rules_wait_for_the_loss_to_stop_falling(rule: live.Plateau | live.Slope, due: float) -> None:
    """It falls by 2 over half of the budget, and no more after that."""
    losses = [(k / 100, 3 - 4 * min(k, 50) / 100) for k in range(100)]
    first = next(at for k, (at, _) in enumerate(losses) if rule(Progress(at, 0.0, losses[: k + 1])))
    assert due < first <= due + 0.21
    assert not rule(Progress(0.9, 0.85, losses[85:91]))  # it grew not long ago


def test_a_run_goes_on_from_a_checkpoint_as_if_it_had_not_stopped() -> None:
    growths = [Growth(Plateau(window=0.2, least=0.5), WIDER), Growth(0.8, Widen(node="fc1", by=1))]

    def losses(schedule: Schedule, module: nn.Module, steps: range) -> tuple[nn.Module, list[float]]:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
        for k in steps:
            module, _ = schedule.step(module, optimizer, samples=1, loss=3 - 0.01 * k)
        return module, schedule.grown

    whole = Schedule(growths, budget=100, unit="steps")
    _, wanted = losses(whole, module_of(mlp()), range(100))
    assert len(wanted) == 2
    first = Schedule(growths, budget=100, unit="steps")
    module, _ = losses(first, module_of(mlp()), range(37))
    again = Schedule(growths, budget=100, unit="steps")
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert losses(again, module, range(37, 100))[1] == wanted
    with pytest.raises(ModelError, match=r"schedule has budget 100\.0, but this one 50\.0"):
        Schedule(growths, budget=50, unit="steps").load_state_dict(first.state_dict())


def test_what_cannot_be_counted_or_is_no_share_is_said() -> None:
    module = module_of(mlp())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    schedule = Schedule([Growth(0.0, lambda graph: graph)], budget=10)  # type: ignore[arg-type, return-value]
    with pytest.raises(ModelError, match="give the step's tokens, or its samples"):
        schedule.step(module, optimizer)
    with pytest.raises(ModelError, match="so there are no tokens to count; give samples instead"):
        schedule.step(module, optimizer, 5)
    with pytest.raises(ModelError, match=r"growths are due in their order, but their shares are \[0\.5, 0\.2\]"):
        Schedule([Growth(0.5, WIDER), Growth(0.2, WIDER)], budget=1)
    for bad in (-0.1, 1.5, float("nan"), True, "half"):
        with pytest.raises(ModelError, match="is no part of the budget"):
            Schedule([Growth(bad, WIDER)], budget=1)  # type: ignore[arg-type]
    for budget in (0, -1, float("inf")):
        with pytest.raises(ModelError, match="a positive number of floating-point operations is needed"):
            Schedule([], budget=budget)
    with pytest.raises(ModelError, match="unit='flops' is none of compute, tokens, steps"):
        Schedule([], budget=1, unit="flops")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="more than the whole budget"):
        Schedule([], budget=1, warmup=0.6, decay=0.6)


def test_a_branch_goes_its_own_way() -> None:
    module = module_of(mlp())
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    schedule = Schedule([Growth(0.5, WIDER)], budget=4, unit="steps")
    batch = (torch.randn(5, 3, dtype=torch.float64),)
    one_step(module, optimizer, batch)
    other, its_optimizer, its_scheduler, its_schedule = live.branch(module, optimizer, scheduler, schedule)
    assert its_scheduler.optimizer is its_optimizer
    before = copy.deepcopy(module.state_dict())
    for _ in range(2):
        one_step(other, its_optimizer, batch)
        its_scheduler.step()
        other, report = its_schedule.step(other, its_optimizer, samples=5)
    assert report is not None
    assert schedule.spent == 0
    assert all(torch.equal(before[key], tensor) for key, tensor in module.state_dict().items())
    assert live.network_of(other).graph.hash != live.network_of(module).graph.hash
    # The same steps from the same point end at the same numbers.
    twin, twin_optimizer, _ = live.branch(module, optimizer, scheduler)
    for each, its in ((module, optimizer), (twin, twin_optimizer)):
        one_step(each, its, batch)
    assert all(torch.equal(twin.state_dict()[key], tensor) for key, tensor in module.state_dict().items())
    grown, _ = live.grow(module, Sequence(passes=(WIDER,)), optimizer)
    with pytest.raises(ModelError, match="4 of the optimizer's 4 parameters are none of the module's"):
        live.branch(twin, optimizer)
    assert live.branch(grown, optimizer)
