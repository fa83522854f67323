from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgepack import compiler, importers
from edgepack.compiler import frontend, lower, plan
from edgepack.compiler.arena import ALIGNMENT
from edgepack.errors import ModelError
from edgepack.targets import load_target
from tests import networks


def planned(network: onnx.ModelProto, path: Path) -> plan.Plan:
    imported = importers.import_model(networks.save(network, path), {})
    module = lower.lower(frontend.to_relax(imported.model), load_target("x86-64-v3"))
    return plan.make_plan(module, imported.inputs, imported.outputs)


@pytest.fixture(params=sorted(networks.NETWORKS))
def some_plan(request: pytest.FixtureRequest, tmp_path: Path) -> plan.Plan:
    return planned(networks.NETWORKS[request.param](), tmp_path / "model.onnx")


def test_tensors_that_live_at_once_never_share_bytes(some_plan: plan.Plan) -> None:
    written: dict[int, set[int]] = {}
    for step, call in enumerate(some_plan.calls):
        for slot in (some_plan.slots[i] for i in call.args):
            if slot.place is plan.Place.ARENA:
                span = range(slot.offset, slot.offset + slot.spec.nbytes)
                assert span.stop <= some_plan.arena_bytes
                written.setdefault(step, set())
                assert not written[step] & set(span), "two operands of one kernel overlap"
                written[step] |= set(span)


def test_every_slot_is_aligned(some_plan: plan.Plan) -> None:
    for slot in some_plan.slots:
        if slot.place in (plan.Place.ARENA, plan.Place.WEIGHTS):
            assert slot.offset % ALIGNMENT == 0


def test_every_output_is_written(some_plan: plan.Plan) -> None:
    used = {some_plan.slots[i] for call in some_plan.calls for i in call.args}
    outputs = {slot.offset for slot in used if slot.place is plan.Place.OUTPUT}
    assert outputs == set(range(len(outputs)))
    assert outputs


def test_a_chain_reuses_its_memory(tmp_path: Path) -> None:
    nodes = [networks.node("MatMul", f"t{i} w", f"t{i + 1}") for i in range(12)]
    weights = {"w": np.eye(64, k=1, dtype=np.float32)}
    network = networks.model(nodes, {"t0": [64, 64]}, {"t12": [64, 64]}, weights)
    made = planned(network, tmp_path / "chain.onnx")
    one = 64 * 64 * 4
    assert made.arena_bytes <= 3 * one
    assert len(made.weights) == one, "the matrix that every step uses is stored once"


def test_operators_without_a_lowering_are_all_named_with_their_nodes(tmp_path: Path) -> None:
    graph = networks.model([networks.node("Relu", "x", "y")], {"x": [4]}, {"y": [4]})
    del graph.graph.node[:]
    graph.graph.node.extend(
        [
            onnx.helper.make_node("Frobnicate", ["x"], ["a"], name="first", domain="com.acme"),
            onnx.helper.make_node("StringNormalizer", ["a"], ["b"], name="second"),
            onnx.helper.make_node("Frobnicate", ["b"], ["y"], name="third", domain="com.acme"),
        ]
    )
    with pytest.raises(ModelError) as caught:
        frontend.to_relax(graph)
    assert "com.acme.Frobnicate (2x: first, third)" in caught.value.message
    assert "StringNormalizer (1x: second)" in caught.value.message


def test_the_same_model_gives_the_same_object_plan_and_weights(tmp_path: Path) -> None:
    def compiled() -> tuple[bytes, str, bytes]:
        path = networks.save(networks.convolutional(), tmp_path / "model.onnx")
        made = compiler.compile_model(importers.import_model(path, {}), load_target("raspberrypi4"))
        return made.kernels, made.plan_source, made.weights

    assert compiled() == compiled()


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "Größe", "a??/b", "%s", "x y"])
def test_any_tensor_name_survives_as_a_c_string(
    tmp_path: Path, name: str, c_string_value: Callable[[str], str]
) -> None:
    from edgepack.compiler.codegen import _c_string

    assert c_string_value(_c_string(name)) == name


@pytest.fixture
def c_string_value(tmp_path: Path) -> Callable[[str], str]:
    """What a C compiler makes of a literal: compiled by zig and printed."""
    import subprocess
    import sys

    def value(literal: str) -> str:
        source = tmp_path / "literal.c"
        source.write_text(
            f"#include <stdio.h>\nint main(void) {{ return fputs({literal}, stdout) < 0; }}\n"
        )
        program = tmp_path / "literal"
        zig = [sys.executable, "-m", "ziglang", "cc", "-std=c99", str(source), "-o", str(program)]
        subprocess.run(zig, check=True, capture_output=True)
        return subprocess.run([str(program)], check=True, capture_output=True).stdout.decode()

    return value
