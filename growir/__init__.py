"""A compiler for growable neural networks: architectures are documents, and growth is a rewrite of them.

Where to begin, by what is there:

    data                grow(None, "digits") is a whole run, from the empty graph to a trained network
    a run directory     predict("runs/digits-001", x) is what the network in it says of new samples
    a torch model       from_torch(model, example_inputs) is the Network that computes the same
    two sizes of one    plan(small, large, example_inputs) is how the one grows into the other
    a file or a dict    load_graph(source) is the Graph, and Network.init(graph) gives it weights
    a Network           network.apply(pass), network.to_torch(), network.to_onnx("net.onnx"), network.save("folder")
    a Graph             summary(graph), costs_of(graph), channel_spaces(graph), diff(before, after)

Modules with more of the same: growir.passes has what changes a network (Widen, AddNode, Prune, ...), growir.live grows
one inside a training loop of your own, growir.sklearn has estimators for scikit-learn (pip install 'growir[sklearn]'),
and growir.testing tests passes of your own (pip install 'growir[test]').

Whatever a caller can mend is raised as a GrowirError that says how. Names are imported when they are first used, so
that `import growir` is quick and needs no torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from growir import live as live
    from growir import passes as passes
    from growir.channels import ChannelSpace as ChannelSpace
    from growir.channels import channel_spaces as channel_spaces
    from growir.costs import costs_of as costs_of
    from growir.difference import diff as diff
    from growir.errors import DataError as DataError
    from growir.errors import ExportError as ExportError
    from growir.errors import GraphError as GraphError
    from growir.errors import GrowirError as GrowirError
    from growir.errors import ModelError as ModelError
    from growir.errors import PassRefused as PassRefused
    from growir.errors import RunError as RunError
    from growir.graph import Graph as Graph
    from growir.graph import Input as Input
    from growir.graph import Node as Node
    from growir.growth import GrowthResult as GrowthResult
    from growir.growth import grow as grow
    from growir.growth import predict as predict
    from growir.importing import from_torch as from_torch
    from growir.importing import plan as plan
    from growir.inspecting import summary as summary
    from growir.network import Network as Network
    from growir.network import load_graph as load_graph
    from growir.planning import Plan as Plan
    from growir.rewrite import Pass as Pass
    from growir.rewrite import Preserves as Preserves

__version__ = "0.1.0"

_EXPORTS = {
    "ChannelSpace": "growir.channels",
    "channel_spaces": "growir.channels",
    "costs_of": "growir.costs",
    "diff": "growir.difference",
    "DataError": "growir.errors",
    "ExportError": "growir.errors",
    "GraphError": "growir.errors",
    "GrowirError": "growir.errors",
    "ModelError": "growir.errors",
    "PassRefused": "growir.errors",
    "RunError": "growir.errors",
    "Graph": "growir.graph",
    "Input": "growir.graph",
    "Node": "growir.graph",
    "GrowthResult": "growir.growth",
    "grow": "growir.growth",
    "predict": "growir.growth",
    "from_torch": "growir.importing",
    "plan": "growir.importing",
    "Network": "growir.network",
    "load_graph": "growir.network",
    "Plan": "growir.planning",
    "Pass": "growir.rewrite",
    "Preserves": "growir.rewrite",
    "summary": "growir.inspecting",
}
_MODULES = ("live", "passes")
# These need packages that not everyone has. Who asks for them gets them, or is told what to install; who only looks at
# all that growir has (help, `import *`, completion) does not import them, so they are not listed.
_EXTRAS = ("sklearn", "testing")

__all__ = [*_EXPORTS, *_MODULES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]  # see __getattr__


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    if name in _MODULES or name in _EXTRAS:
        return import_module(f"growir.{name}")
    # With these two Python's traceback proposes the nearest of __all__.
    raise AttributeError(f"module 'growir' has no attribute {name!r}", name=name, obj=sys.modules[__name__])


def __dir__() -> list[str]:
    return sorted(__all__)
