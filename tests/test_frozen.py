"""Parameters that training leaves as they are: in documents, modules, rewrites and differences."""

from __future__ import annotations

import re

import pytest

import growir
from growir.document import dumps
from growir.errors import GraphError
from growir.graph import Graph, Node
from growir.network import Network
from growir.ops import BatchNorm, Linear
from growir.params import frozen_keys
from growir.passes import Widen
from growir.verify import load
from tests.samples import graph_of


def net(frozen: tuple[str, ...] = ("weight",), tied: dict[str, str] | None = None) -> Graph:
    return graph_of(
        (3,),
        Node(name="fc1", op=Linear(out_features=3), inputs=("x",), frozen=frozen),
        Node(name="norm", op=BatchNorm(), inputs=("fc1",)),
        Node(name="head", op=Linear(out_features=3), inputs=("norm",), tied=tied or {}),
    )


def test_it_is_part_of_the_document_and_of_its_hash() -> None:
    assert '"frozen": ["bias", "weight"]' in dumps(net(("weight", "bias")))
    again = load(dumps(net(("weight", "bias"))))
    assert again == net(("bias", "weight", "bias"))
    assert again.hash != net(()).hash
    assert "frozen" not in dumps(net(()))


def test_the_module_does_not_train_it() -> None:
    module = Network.init(net()).to_torch()
    assert {name for name, p in module.named_parameters() if not p.requires_grad} == {"fc1.weight"}


def test_a_tied_parameter_is_frozen_where_it_is_stored() -> None:
    module = Network.init(net(tied={"weight": "fc1.weight"})).to_torch()
    assert not module.get_parameter("head.weight").requires_grad


def test_a_rewrite_keeps_it() -> None:
    wider = Network.init(net()).apply(Widen(node="fc1", by=2))
    assert frozen_keys(wider.graph) == {"fc1.weight"}


def test_reading_shows_it() -> None:
    assert "frozen weight" in net().summary()
    assert 'fc1  frozen [] -> ["weight"]' in str(growir.diff(net(()), net()))


@pytest.mark.parametrize(
    ("where", "names", "says"),
    [
        (0, ["wieght"], "frozen names 'wieght', but the parameters of linear: weight, bias"),
        (1, ["running_var"], "frozen names 'running_var', a buffer, which is never trained; leave it out"),
        (2, ["weight"], "frozen names 'weight', which belongs to 'fc1.weight'; say it there"),
        (0, "weight", 'frozen is an array of parameter names like ["weight"]'),
    ],
)
def test_a_wrong_one_is_refused(where: int, names: object, says: str) -> None:
    import json

    data = json.loads(dumps(net((), tied={"weight": "fc1.weight"})))
    data["nodes"][where]["frozen"] = names
    with pytest.raises(GraphError, match=re.escape(says)):
        load(data)
