"""Tiny models of the `transformers` package, imported as their users call them, and grown."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from growir.backends.agreement import check_agreement
from growir.passes import Prune, Split, Widen
from growir.testing.laws import GRADIENT, TOLERANCE, deviations
from tests.importing.families import CLOSE, FAMILIES, apart, imported, in_doubles

pytest.importorskip("transformers")

BY_NAME = {family.name: family for family in FAMILIES}
# One of each way to make positions, masks, norms and heads; text is called with a mask.
CHOSEN = (
    *(("gpt2", "mask"), ("llama", "mask"), ("gemma3", "mask"), ("phi3", "mask"), ("falcon", "ids"), ("bloom", "mask")),
    *(("bert", "mask"), ("roberta", "mask"), ("deberta", "mask"), ("deberta_v2", "mask"), ("t5", "mask")),
    *(("clip_text", "mask"), ("diffllama", "ids"), ("vit", "image"), ("beit", "image"), ("swinv2", "image")),
    *(("mobilevit", "image"), ("wav2vec2", "audio"), ("whisper", "plain")),
)
EVERY = 6  # of the candidates of each pass one in so many is tried


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the package's own
@pytest.mark.parametrize(("name", "way"), CHOSEN, ids=[name for name, _ in CHOSEN])
def test_a_model_is_imported_and_grows(name: str, way: str, tmp_path: Path) -> None:
    model, network, example = imported(BY_NAME[name], way)
    assert apart(model, network, example) <= CLOSE
    path = tmp_path / "model.onnx"
    network.to_onnx(path)
    assert check_agreement(network.graph, network.arrays, path) <= 1e-5
    batch = tuple(in_doubles(example, 3).values())
    for kind in (Widen, Split, Prune):
        for pass_ in itertools.islice(kind.candidates(network.graph), 0, None, EVERY):
            for found in deviations(pass_, network, batch):
                assert found.error <= (GRADIENT if found.gradient else TOLERANCE), (pass_, found)
            network.apply(pass_).to_torch().double()(*batch)
