from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgepack import captures
from edgepack.errors import ConfigError
from tests.capture_samples import raw, segment


def write(path: Path, *numbers: int, model: str = "m") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(raw(number, model=model) for number in numbers))
    return path


def numbers(path: Path) -> list[int]:
    return [record.number for record in captures.read(path)]


def test_segments_of_a_device_are_read_in_order(tmp_path: Path) -> None:
    segment(tmp_path / "m", [1025, 1026])
    last = segment(tmp_path / "m", [9])
    segment(tmp_path / "m", [255])
    last.write_bytes(last.read_bytes()[:-1])
    (tmp_path / "m" / "next").write_text("2048")
    (tmp_path / "m" / "rules.json").write_text("{}")
    assert numbers(tmp_path) == [255, 1025, 1026]


def test_what_was_pushed_twice_is_read_once(tmp_path: Path) -> None:
    folder = tmp_path / "device" / "m"
    write(folder / "000000000001-000000000003.epc", 1, 2, 3)
    write(folder / "000000000001-000000000005.epc", 1, 2, 3, 4, 5)
    write(folder / "000000000004-000000000005.epc", 4, 5)
    write(folder / "000000001025-000000001025.epc", 1025)
    assert numbers(tmp_path) == [1, 2, 3, 4, 5, 1025]


def test_devices_and_models_below_one_folder_are_kept_apart(tmp_path: Path) -> None:
    write(tmp_path / "b" / "m" / "000000000001-000000000001.epc", 1)
    write(tmp_path / "a" / "n" / "000000000001-000000000002.epc", 1, 2, model="n")
    write(tmp_path / "a" / "m" / "000000000001-000000000001.epc", 1)
    found = [(record.model, record.number) for record in captures.read(tmp_path)]
    assert found == [("m", 1), ("n", 1), ("n", 2), ("m", 1)]


def test_one_file_is_read_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "any-name.epc", 1, 2)
    assert numbers(path) == [1, 2]
    assert [r.number for r in captures.read(str(path))] == [1, 2]


def test_nothing_to_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a file nor a folder"):
        numbers(tmp_path / "absent")
    (tmp_path / "photo.npz").write_bytes(b"")
    with pytest.raises(ConfigError, match="holds no captures"):
        numbers(tmp_path)
    (tmp_path / "text.txt").write_bytes(b"")
    with pytest.raises(ConfigError, match="is no file of captures") as caught:
        numbers(tmp_path / "text.txt")
    assert ".npz, .parquet, .epc, .seg" in caught.value.hint


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"x" * 1000, b"PAR1" + b"x" * 100 + b"PAR1"]
)
@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_a_file_that_is_no_dataset_is_told(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is no file of captures: "):
        numbers(path)


def test_an_npz_of_other_arrays_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(ConfigError, match="is no file of captures"):
        numbers(tmp_path / "a.npz")


def test_an_npz_with_pickled_objects_is_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", model=np.array([{}], dtype=object))
    with pytest.raises(ConfigError, match="is no file of captures"):
        numbers(tmp_path / "a.npz")
