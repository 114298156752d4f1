"""TINY: the closed form beside the paper's matrices, units that help, layers that are left out, and the law."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from growir.graph import Graph, Node
from growir.growth.budget import Budget
from growir.growth.measure.bottlenecks import Bottlenecks, Lacking
from growir.growth.measure.sites import sites
from growir.growth.objective import Outputs
from growir.growth.policies.tiny import AMPLITUDES, Tiny, TinySettings
from growir.growth.session import Session
from growir.ops import Conv2d, GroupNorm, Linear, Relu
from growir.passes import Sequence
from growir.testing import policy_law, random_network
from tests.growth.test_firefly import SITED
from tests.growth.test_policies import session_of
from tests.samples import graph_of

FEW: dict[str, Any] = {"fresh_units": 2, "learn_batch": 32, "judge_batches": 1}
test_obeys = policy_law(Tiny, settings=FEW, graphs=SITED)
test_obeys_by_parameter = policy_law(
    Tiny, settings={**FEW, "judge_batches": 0, "order": "per_parameter"}, graphs=SITED, max_examples=4
)


def dense() -> Graph:
    return graph_of(
        (5,),
        Node(name="one", op=Linear(out_features=4), inputs=("x",)),
        Node(name="act", op=Relu(), inputs=("one",)),
        Node(name="two", op=Linear(out_features=3), inputs=("act",)),
        outputs=("two",),
    )


def convolutional() -> Graph:
    return graph_of(
        (2, 5, 5),
        Node(name="one", op=Conv2d(out_channels=4, kernel_size=3, padding=1), inputs=("x",)),
        Node(name="act", op=Relu(), inputs=("one",)),
        Node(name="two", op=Conv2d(out_channels=2, kernel_size=3, padding=1), inputs=("act",)),
        outputs=("two",),
    )


def unfolded(value: torch.Tensor) -> torch.Tensor:
    """(n, features, positions) what the weight of a layer multiplies."""
    return value[:, :, None] if value.ndim == 2 else F.unfold(value, 3, padding=1)


@pytest.mark.parametrize("make", [dense, convolutional])
def test_units_are_those_of_the_paper(make: Any) -> None:
    graph = make()
    module = random_network(graph).to_torch().eval()
    x = torch.randn(40, *graph.inputs[0].shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.randn(module(x).shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def losses(outputs: Outputs) -> torch.Tensor:
        return 0.5 * (outputs[0] - target).square().flatten(1).sum(1)

    found = Bottlenecks(module, sites(graph).sites).lacking((x,), losses, 3)["one"]
    assert isinstance(found, Lacking)
    hidden = torch.relu(module.get_submodule("one")(x)).detach()
    wish = target - module(x).detach()
    wish = wish.flatten(2) if x.ndim > 2 else wish[:, :, None]
    own = unfolded(hidden).movedim(1, 2).flatten(0, 1)
    own = torch.cat([own, torch.ones(len(own), 1, dtype=own.dtype)], 1)
    rows = wish.movedim(1, 2).flatten(0, 1)
    lacked = rows - own @ torch.linalg.lstsq(own, rows).solution
    inputs = unfolded(x)
    size = inputs.shape[1]
    moments = torch.einsum("nip,njp->ij", inputs, inputs) / len(x)
    if x.ndim > 2:  # each input where each place of the reader's kernel sees it
        inputs = F.unfold(inputs.reshape(-1, size, 5, 5), 3, padding=1).reshape(-1, size, 9, 25)
    else:
        inputs = inputs[:, :, None]
    crossed = torch.einsum("nikp,npc->ick", inputs, lacked.reshape(len(x), -1, rows.shape[1])).flatten(1) / len(x)
    values, vectors = torch.linalg.eigh(moments)
    root = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    left, scales, right = torch.linalg.svd(root @ (0.5 * crossed), full_matrices=False)  # relu has half a slope
    torch.testing.assert_close(found.gains, scales[:3].square(), rtol=1e-3, atol=0)
    for k in range(3):
        both = torch.outer(found.incoming["one.weight", 0][k], found.outgoing["two.weight", 1][k])
        wanted = torch.outer(root @ left[:, k], right[k]) * scales[k]
        torch.testing.assert_close(both, wanted, rtol=0, atol=1e-3 * float(wanted.abs().max()))


def decided(name: str, **more: Any) -> tuple[Session, Sequence]:
    session = session_of(name, "random", per_growth={"units": 3})
    policy = Tiny(TinySettings(**{**FEW, "learn_batch": 64, **more}))
    room = Budget(session.config.budget, session.graph)
    session.recalibrate(0)
    scores = policy.score(session, policy.propose(session, room), 1)
    step = policy.build(session, policy.select(session, scores, room))
    assert isinstance(step, Sequence)
    return session, step


@pytest.mark.parametrize("name", ["dense", "residual", "attention"])
def test_what_grows_lessens_the_loss_at_once(name: str) -> None:
    session, step = decided(name, judge_batches=4)
    before = session.measure(session.data.train).metrics["loss"]
    session.grow(step)
    session.recalibrate(1)
    assert session.measure(session.data.train).metrics["loss"] < before


def test_an_amplitude_of_zero_keeps_the_function() -> None:
    session, step = decided("dense", judge_batches=0)
    before = session.measure(session.data.train).losses
    session.grow(step)
    torch.testing.assert_close(session.measure(session.data.train).losses, before)
    assert any(array.any() for array in step.values.values())


def test_units_have_the_sign_that_gains_more() -> None:
    """Under relu either sign sees half of its inputs: of both together the gain is twice what is solved, or about."""
    session = session_of("dense", "random")
    policy = Tiny(TinySettings(**{**FEW, "learn_batch": 64}))
    scores = policy.score(session, policy.propose(session, Budget(session.config.budget, session.graph)), 1)
    assert len(scores) == 4
    assert all(score.ordinal and score.gain > score.notes["solved"] > 0 for score in scores)


def test_what_has_no_closed_form_is_left_out_with_the_reason() -> None:
    session = session_of("depthwise", "random")
    found = Bottlenecks(session.module, sites(session.graph).sites)
    assert found.skipped["layers.0"] == "a kernel carries each of its units by itself"
    assert [site.name for site in found.sites] == ["layers.5"]


def test_a_norm_of_single_channels_is_found_not_to_be_linear() -> None:
    graph = graph_of(
        (2, 5, 5),
        Node(name="one", op=Conv2d(out_channels=4, kernel_size=3, padding=1), inputs=("x",)),
        Node(name="norm", op=GroupNorm(num_groups=4), inputs=("one",)),
        Node(name="two", op=Conv2d(out_channels=2, kernel_size=3, padding=1), inputs=("norm",)),
        outputs=("two",),
    )
    module = random_network(graph).to_torch().eval()
    found = Bottlenecks(module, sites(graph).sites)
    if not found.sites:
        assert found.skipped
        return
    x = torch.randn(8, 2, 5, 5, dtype=torch.float64)
    (why,) = found.lacking((x,), lambda out: out[0].square().flatten(1).sum(1), 2).values()
    assert why == "what lies between what makes its units and what reads them is not linear near zero"


def test_an_amplitude_that_overflows_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of("dense", {"name": "tiny", **FEW})
    policy = Tiny(TinySettings(**FEW))
    budget = Budget(session.config.budget, session.graph)
    scores = policy.score(session, policy.propose(session, budget), 1)
    chosen = policy.select(session, scores, budget)
    found = policy.build(session, chosen)
    monkeypatch.setattr("growir.growth.policies.tiny.AMPLITUDES", (*AMPLITUDES, float("inf")))
    again = policy.build(session, chosen)
    assert isinstance(found, Sequence)
    assert isinstance(again, Sequence)
    assert all((again.values[address] == numbers).all() for address, numbers in found.values.items())
