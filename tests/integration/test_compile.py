"""Whole compilations through the command line, checked by running the packages on every CPU."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests import blocks, networks
from tests.conftest import Edgepack

pytestmark = pytest.mark.needs("qemu-aarch64-static", "qemu-arm-static", "qemu-riscv64-static")

TARGETS = ("host", "raspberrypi4", "armv7-neon", "riscv64-generic", "riscv64-vector")
NETWORKS = networks.NETWORKS | blocks.NETWORKS
EVERYWHERE = [argument for target in TARGETS for argument in ("--target", target)]


def reference(model: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def inputs_of(inspected: dict[str, Any], seed: int, high: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        spec["name"]: (
            generator.integers(0, high, spec["shape"])
            if "int" in spec["dtype"]
            else generator.uniform(-1, 1, spec["shape"])
        ).astype(spec["dtype"])
        for spec in inspected["inputs"]
    }


def run(
    edgepack: Edgepack, package: Path, target: str, inputs: dict[str, np.ndarray], place: Path
) -> dict[str, np.ndarray]:
    arguments: list[str] = []
    for number, (name, value) in enumerate(inputs.items()):
        np.save(place / f"{number}.npy", value)
        arguments += ["--input", f"{name}={place / f'{number}.npy'}"]
    output = place / "y.npz"
    done = edgepack("run", package, "--target", target, *arguments, "--output", output)
    assert done.returncode == 0, done.stderr
    with np.load(output) as arrays:
        return {name: arrays[name] for name in arrays.files}


def assert_equal_within(
    answer: dict[str, np.ndarray], wanted: dict[str, np.ndarray], relative: float
) -> None:
    assert answer.keys() == wanted.keys()
    for name, expected in wanted.items():
        assert answer[name].dtype == expected.dtype
        if expected.dtype.kind == "f":
            error = np.abs(answer[name] - expected).max() / np.abs(expected).max()
            assert error <= relative, f"{name}: {error}"
        else:
            np.testing.assert_array_equal(answer[name], expected)


@pytest.fixture(scope="module")
def compiled(
    tmp_path_factory: pytest.TempPathFactory, edgepack_json: Callable[..., Any]
) -> Callable[[str], tuple[Path, Path, Any]]:
    """Model file, package and what ``compile --json`` said, for a network by name, made once."""
    known: dict[str, tuple[Path, Path, Any]] = {}

    def make(name: str) -> tuple[Path, Path, Any]:
        if name not in known:
            place = tmp_path_factory.mktemp(name)
            model = networks.save(NETWORKS[name](), place / "model.onnx")
            package = place / "model.epk"
            said = edgepack_json("compile", model, *EVERYWHERE, "-o", package)
            known[name] = (model, package, said)
        return known[name]

    return make


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_answers_equal_onnx_runtimes_on_inputs_that_the_package_never_saw(
    network: str,
    target: str,
    compiled: Callable[[str], tuple[Path, Path, Any]],
    edgepack: Edgepack,
    edgepack_json: Callable[..., Any],
    tmp_path: Path,
) -> None:
    model, package, _ = compiled(network)
    inspected = edgepack_json("inspect", package)
    answers = []
    for seed in (1, 2):
        inputs = inputs_of(inspected, seed, high=300)
        answers.append(run(edgepack, package, target, inputs, tmp_path))
        assert_equal_within(answers[-1], reference(model, inputs), 1e-4)
    first, second = answers
    assert any(not np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_compile_says_what_it_made_for_each_target(
    network: str, compiled: Callable[[str], tuple[Path, Path, Any]]
) -> None:
    _, package, said = compiled(network)
    assert said["package"] == str(package)
    assert [target["name"] for target in said["targets"]] == list(TARGETS)
    for target in said["targets"]:
        assert target["check"]["vectors"] >= 2
        assert target["check"]["max_relative_error"] <= 1e-4
        assert target["check"]["skipped"] == ""
        assert 0 < target["code_bytes"] < 200_000
        assert target["arena_bytes"] > 0 or network == "scalars"


def test_compiling_twice_gives_the_same_bytes(
    compiled: Callable[[str], tuple[Path, Path, Any]], edgepack: Edgepack, tmp_path: Path
) -> None:
    model, package, _ = compiled("convolutional")
    again = tmp_path / "again.epk"
    done = edgepack("compile", model, *EVERYWHERE, "-o", again, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert again.read_bytes() == package.read_bytes()


def test_bench_reports_the_fields_that_programs_rely_on(
    compiled: Callable[[str], tuple[Path, Path, Any]], edgepack_json: Callable[..., Any]
) -> None:
    _, package, _ = compiled("convolutional")
    said = edgepack_json("bench", package, "--seconds", "0.2")
    assert said["threads"] == 1
    assert (
        0 < said["latency_ms"]["min"] <= said["latency_ms"]["median"] <= said["latency_ms"]["p95"]
    )
    assert said["cold_start_ms"] >= said["ready_ms"] > 0
    assert said["peak_rss_bytes"] > 0
    assert said["iterations"] >= 3


def test_a_profile_for_a_cpu_that_lacks_the_instructions_is_refused_before_a_package_is_written(
    edgepack: Edgepack, tmp_path: Path
) -> None:
    profile = (
        Path(networks.__file__).parents[1] / "edgepack/targets/raspberrypi4.toml"
    ).read_text()
    newer = tmp_path / "newer.toml"
    newer.write_text(re.sub(r"features = \[.*?\]", 'features = ["+cssc"]', profile))
    assert "+cssc" in newer.read_text()
    model = networks.save(networks.convolutional(), tmp_path / "model.onnx")
    package = tmp_path / "model.epk"
    done = edgepack("compile", model, "--target", newer, "-o", package, "--json")
    assert done.returncode == 5
    assert "SIGILL" in json.loads(done.stdout)["error"]["message"]
    assert not package.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--target", "raspberypi4"], 3, "raspberypi4"),
        (["--target", "host", "--input", "nothing=1,3"], 4, "nothing"),
        (["--target", "host", "--tolerance", "1e-9"], 5, "tolerance"),
    ],
)
def test_a_wrong_option_is_one_line_with_its_class_and_writes_nothing(
    edgepack: Edgepack, tmp_path: Path, arguments: list[str], code: int, named: str
) -> None:
    model = networks.save(networks.convolutional(), tmp_path / "model.onnx")
    done = edgepack("compile", model, *arguments, "--json", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert named in json.loads(done.stdout)["error"]["message"]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.epk"))


def test_a_model_that_needs_more_memory_than_the_profile_allows_is_refused(
    edgepack: Edgepack, tmp_path: Path
) -> None:
    profile = (
        Path(networks.__file__).parents[1] / "edgepack/targets/raspberrypi4.toml"
    ).read_text()
    small = tmp_path / "small.toml"
    lines = [
        "memory_bytes = 1048576" if line.startswith("memory_bytes") else line
        for line in profile.splitlines()
    ]
    small.write_text("\n".join(lines))
    network = networks.model(
        [networks.node("MatMul", "x w", "y")],
        {"x": [1, 1024]},
        {"y": [1, 1024]},
        {"w": np.eye(1024, k=3, dtype=np.float32)},
    )
    done = edgepack(
        "compile", networks.save(network, tmp_path / "m.onnx"), "-t", small, "--json", cwd=tmp_path
    )
    assert done.returncode == 5
    assert "1048576" in json.loads(done.stdout)["error"]["message"]


def test_more_outputs_than_a_package_holds_are_refused_before_compiling(
    edgepack: Edgepack, tmp_path: Path
) -> None:
    nodes = [networks.node("Mul", "x x", f"y{i}") for i in range(65)]
    network = networks.model(nodes, {"x": [4]}, {f"y{i}": [4] for i in range(65)})
    model = networks.save(network, tmp_path / "m.onnx")
    done = edgepack("compile", model, "-t", "host", "--json", cwd=tmp_path)
    assert done.returncode == 4
    assert "65 outputs" in json.loads(done.stdout)["error"]["message"]
    assert not list(tmp_path.glob("*.epk"))


@pytest.mark.parametrize("output", ["y", "q"])
def test_quantised_layers_give_the_same_integers_on_every_cpu(
    output: str, edgepack: Edgepack, edgepack_json: Callable[..., Any], tmp_path: Path
) -> None:
    """ONNX Runtime's own ways of computing them differ by steps: the package is held to what was measured."""
    model = networks.save(networks.quantised(6, output), tmp_path / "model.onnx")
    package = tmp_path / "model.epk"
    said = edgepack_json("compile", model, *EVERYWHERE, "-o", package)
    assert [target["check"]["max_relative_error"] for target in said["targets"]] == [0.0] * 5
    inspected = edgepack_json("inspect", package)
    assert {target["model"]["tolerance"] for target in inspected["targets"]} == {1e-4}
    inputs = inputs_of(inspected, 7, high=0)
    wanted = reference(model, inputs)
    assert len(np.unique(wanted[output])) > 10
    for target in ("host", "raspberrypi4"):
        answer = run(edgepack, package, target, inputs, tmp_path)
        np.testing.assert_array_equal(answer[output], wanted[output])


def test_an_index_in_range_reads_and_writes_where_onnx_runtime_does(
    edgepack: Edgepack, lookups: tuple[Path, Path], tmp_path: Path
) -> None:
    model, package = lookups
    columns = np.tile(np.array([3, -16]), (300, 1))
    places = np.array([[0, 0], [299, 15], [-300, -1], [17, -3]])
    inputs = {"rows": np.array([5, -1, -300]), "columns": columns, "places": places}
    answer = run(edgepack, package, "host", inputs, tmp_path)
    for name, wanted in reference(model, inputs).items():
        np.testing.assert_array_equal(answer[name], wanted, err_msg=name)


def test_an_index_out_of_range_stays_inside_the_tensor(
    edgepack: Edgepack, lookups: tuple[Path, Path], tmp_path: Path
) -> None:
    model, package = lookups
    (table,) = (
        onnx.numpy_helper.to_array(weight)
        for weight in onnx.load(model).graph.initializer
        if weight.name == "table"
    )
    far = 2**40
    columns = np.tile(np.array([far, -far]), (300, 1))
    places = np.array([[far, far], [far, 0], [0, -far], [-far, far]])
    inputs = {"rows": np.array([far, 300, -far]), "columns": columns, "places": places}
    answer = run(edgepack, package, "host", inputs, tmp_path)
    np.testing.assert_array_equal(answer["gathered"], table[[-1, -1, 0]])
    np.testing.assert_array_equal(answer["elements"], table[:, [-1, 0]])
    np.testing.assert_array_equal(answer["points"], table[[-1, -1, 0, 0], [-1, 0, 0, -1]])
    marked, dotted = table.copy(), table.copy()
    marked[:, -1], marked[:, 0] = 7, 8
    dotted[[-1, -1, 0, 0], [-1, 0, 0, -1]] = [1, 2, 3, 4]
    np.testing.assert_array_equal(answer["marked"], marked)
    np.testing.assert_array_equal(answer["dotted"], dotted)


@pytest.fixture(scope="module")
def lookups(edgepack: Edgepack, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The network of lookups and its package for this machine."""
    place = tmp_path_factory.mktemp("lookups")
    model, package = networks.save(networks.lookups(), place / "m.onnx"), place / "m.epk"
    done = edgepack("compile", model, "-t", "host", "-o", package)
    assert done.returncode == 0, done.stderr
    return model, package
