"""Values of options: shapes, files, targets, names, versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack.cli.arguments import (
    check_version,
    model_name,
    package_path,
    parse_age,
    parse_bytes,
    parse_files,
    parse_shapes,
    parse_targets,
    parse_threshold,
)
from edgepack.errors import ConfigError
from edgepack.naming import is_name


def test_shapes_are_read_by_input_name() -> None:
    shapes = parse_shapes(["x=1,3,48,320", "serving_default_a:0=7", "a=b=2,2"])
    assert shapes == {"x": (1, 3, 48, 320), "serving_default_a:0": (7,), "a=b": (2, 2)}


@pytest.mark.parametrize(
    "option",
    [
        "x",
        "=1,2",
        "x=",
        "x=1,,2",
        "x=1,2,",
        "x=1x2",
        "x=-1",
        "x=1.5",
        "x=0",
        "x=99999999999",
        "x=²",
        "x=1,\u0661",
    ],
)
def test_a_shape_that_is_none_is_refused_with_an_example(option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_shapes([option])
    assert repr(option) in caught.value.message


@pytest.mark.parametrize("parse", [parse_shapes, parse_files])
def test_an_input_given_twice_is_refused(parse: type) -> None:
    with pytest.raises(ConfigError, match="twice"):
        parse(["x=1", "y=1", "x=2"])


def test_a_file_may_have_an_equals_sign_in_its_path() -> None:
    assert parse_files(["x=a=b/x.npy"]) == {"x": Path("a=b/x.npy")}


@pytest.mark.parametrize("option", ["x", "x=", "=x.npy"])
def test_an_input_file_that_is_none_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="is not an input's name and its file"):
        parse_files([option])


def test_targets_keep_their_order() -> None:
    names = [target.name for target in parse_targets(["raspberrypi4", "host"])]
    assert names == ["raspberrypi4", "host"]


def test_a_target_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="'host' is given twice"):
        parse_targets(["host", "host"])


def test_two_profile_files_of_one_name_are_refused(tmp_path: Path) -> None:
    import edgepack.targets

    shipped = Path(edgepack.targets.__file__).parent / "raspberrypi4.toml"
    (tmp_path / "raspberrypi4.toml").write_bytes(shipped.read_bytes())
    with pytest.raises(ConfigError, match="'raspberrypi4' is given twice"):
        parse_targets(["raspberrypi4", str(tmp_path / "raspberrypi4.toml")])


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("model.onnx", "model"),
        ("ch_PP-OCRv4_rec_infer.onnx", "ch_pp-ocrv4_rec_infer"),
        ("My Model (final).onnx", "my-model-final"),
        ("_v2.onnx", "v2"),
        ("Überblick.onnx", "berblick"),
        ("x" * 100 + ".onnx", "x" * 64),
    ],
)
def test_a_name_is_made_of_the_file(file: str, name: str) -> None:
    assert model_name(None, Path(file)) == name
    assert is_name(name)


@pytest.mark.parametrize("file", ["____.onnx", "模型.onnx"])
def test_a_file_that_gives_no_name_asks_for_one(file: str) -> None:
    with pytest.raises(ConfigError) as caught:
        model_name(None, Path(file))
    assert "--name" in caught.value.hint


@pytest.mark.parametrize("name", ["", "A", "a b", "../a", "-a", "a" * 65])
def test_a_name_outside_the_rule_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a model's name"):
        model_name(name, Path("m.onnx"))


@pytest.mark.parametrize("version", ["1", "1.0", "v1.0.0", "1.0.0-rc1", "01.0.0", "1.0.2147483648"])
def test_a_version_outside_the_rule_is_refused(version: str) -> None:
    with pytest.raises(ConfigError, match="--installed"):
        check_version(version, "--installed")


def test_a_version_passes_as_it_is() -> None:
    assert check_version("1.20.3") == "1.20.3"


def test_the_package_goes_beside_us_by_the_models_name() -> None:
    assert package_path(None, Path("/models/Net.v2.onnx")) == Path("Net.v2.epk")


def test_a_place_that_cannot_take_the_package_is_refused_before_any_work(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.touch()
    for place in (tmp_path, tmp_path / "none" / "m.epk", tmp_path / "." / "m.onnx"):
        with pytest.raises(ConfigError, match="--output"):
            package_path(place, model)


def test_thresholds_sizes_and_ages_are_read_with_their_units() -> None:
    assert parse_threshold("a=b=0.5", "--below") == ("a=b", 0.5)
    assert parse_threshold("x=-1e3", "--below") == ("x", -1000)
    assert [parse_bytes(text, "--max-bytes") for text in ("7", "2K", "64M", "1G")] == [
        7,
        2048,
        64 << 20,
        1 << 30,
    ]
    assert [parse_age(text, "--max-age") for text in ("90s", "45m", "12h", "30d")] == [
        90,
        2700,
        43200,
        2592000,
    ]


@pytest.mark.parametrize("option", ["x", "=1", "x=", "x=nan", "x=inf", "x=one"])
def test_a_threshold_that_is_none_is_refused_with_an_example(option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_threshold(option, "--above")
    assert caught.value.hint == "for example --above score=0.5"


@pytest.mark.parametrize("option", ["", "M", "-1", "1.5G", "1T", "1KB", "\u0661"])
def test_a_size_that_is_none_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="is none of N, NK, NM, NG"):
        parse_bytes(option, "--max-bytes")


@pytest.mark.parametrize("option", ["", "30", "1w", "1.5h", "d", "1D"])
def test_an_age_that_is_none_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="is none of Ns, Nm, Nh, Nd"):
        parse_age(option, "--max-age")
