from __future__ import annotations

import pytest

from edgepack.cli.import_options import parse_bounds, parse_layouts, parse_normalizations
from edgepack.errors import ConfigError
from edgepack.importers.preprocessing import Normalization


def test_bounds_layouts_and_normalizations_are_taken_apart() -> None:
    assert parse_bounds(["nms=100", "a=b/c=7"]) == {"nms": 100, "a=b/c": 7}
    assert parse_layouts(["NHWC"]) == {"": "nhwc"}
    assert parse_layouts(["a=nhwc", "b=nchw"]) == {"a": "nhwc", "b": "nchw"}
    assert parse_normalizations(["127.5,64"]) == {"": Normalization(mean=(127.5,), std=(64.0,))}
    assert parse_normalizations(["x=1:2:3,4:5:6"]) == {
        "x": Normalization(mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    }
    assert parse_normalizations(["1:2:3,4"])[""].std == (4.0,)


@pytest.mark.parametrize(
    "option", ["nms", "=3", "nms=", "nms=-1", "nms=0", "nms=1e3", "n=99999999"]
)
def test_what_is_no_bound_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="--bound"):
        parse_bounds([option])


@pytest.mark.parametrize("option", ["", "nhcw", "x=", "x=nhwc,"])
def test_what_is_no_layout_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="--layout"):
        parse_layouts([option])


@pytest.mark.parametrize(
    "option", ["", "1", "1,2,3", "a,b", "1,0", "1,-2", "1:2,3:4:5", "nan,1", "1,inf", "1:,2"]
)
def test_what_is_no_normalization_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="--normalize"):
        parse_normalizations([option])


def test_an_option_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="given twice for 'nms'"):
        parse_bounds(["nms=1", "nms=2"])
    with pytest.raises(ConfigError, match="given twice"):
        parse_layouts(["nhwc", "nchw"])
