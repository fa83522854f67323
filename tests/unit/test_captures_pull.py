"""Pulling into a dataset: nothing twice, nothing lost, whatever ends a pull."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack import captures
from edgepack.captures import pull
from edgepack.captures.formats import FORMATS
from edgepack.errors import ChannelError, ConfigError, DeviceError
from tests.capture_samples import Recording, facts, raw

BOTH = pytest.mark.parametrize("form", FORMATS)


def device(numbers: Iterable[int], model: str = "m", **changes: Any) -> Recording:
    return Recording({model: {n: raw(n, model=model, **changes) for n in numbers}})


def numbers(folder: Path) -> list[int]:
    return [record.number for record in captures.read(folder)]


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@BOTH
def test_what_is_read_back_is_what_the_device_had(tmp_path: Path, form: str) -> None:
    source = device(range(1, 20))
    result = pull(source, tmp_path, form=form)
    found = list(captures.read(tmp_path))
    assert [facts(r) for r in found] == [
        facts(record)
        for record in captures.RecordStream(BytesIO(b"".join(source.records["m"].values())).read)
    ]
    (model,) = result.models
    assert (model.records, model.first, model.last, model.gaps) == (19, 1, 19, [])
    assert model.bytes == sum(map(len, source.records["m"].values()))
    assert model.files == [str(tmp_path / "m" / f"000000000001-000000000019.{form}")]


@BOTH
def test_every_dtype_and_shape_goes_through_a_file(tmp_path: Path, form: str) -> None:
    from edgepack.artefacts import DTYPE_BYTES

    arrays = {
        f"{dtype} {shape}": (np.arange(np.prod(shape, dtype=int)) % 2).astype(dtype).reshape(shape)
        for dtype in DTYPE_BYTES
        for shape in ((), (0,), (2, 3), (1, 2, 2))
    }
    arrays["file"] = np.array([np.nan, np.inf, -0.0], np.float32)  # a name that savez has itself
    pull(device([1, 2], inputs=arrays, outputs={"x": arrays["file"]}), tmp_path, form=form)
    one, two = captures.read(tmp_path)
    assert facts(one)[9:] == facts(two)[9:]
    assert list(one.inputs) == list(arrays)
    for name, array in arrays.items():
        assert one.inputs[name].dtype == array.dtype
        assert one.inputs[name].tobytes() == array.tobytes()
        assert one.inputs[name].shape == array.shape


def test_an_npz_file_stacks_tensors_along_a_new_first_axis(tmp_path: Path) -> None:
    pull(device([1, 2, 3]), tmp_path)
    with np.load(tmp_path / "m/000000000001-000000000003.npz") as file:
        assert file["inputs/x"].shape == (3, 1, 3)
        np.testing.assert_array_equal(file["outputs/count"], [1, 2, 3])
        np.testing.assert_array_equal(file["number"], [1, 2, 3])
        assert file["caller"].tolist() == ['{"line": "3"}', "null", '{"line": "3"}']
        assert file["model"] == "m"


def test_a_parquet_file_is_a_table_that_others_read(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pull(device([1, 2, 3]), tmp_path, form="parquet")
    table = parquet.read_table(tmp_path / "m/000000000001-000000000003.parquet")
    assert table["number"].to_pylist() == [1, 2, 3]
    assert table["inputs/x"].to_pylist()[1] == [2, 3, 4]
    assert table.schema.field("inputs/x").metadata == {b"dtype": b"float32", b"shape": b"[1, 3]"}


def test_only_what_is_new_is_asked_for(tmp_path: Path) -> None:
    source = device([1, 2, 3])
    pull(source, tmp_path)
    (model,) = pull(source, tmp_path).models
    assert (model.records, model.files) == (0, [])
    source.records["m"] |= {n: raw(n) for n in (4, 1025)}
    (model,) = pull(source, tmp_path).models
    assert (model.first, model.last, model.gaps) == (4, 1025, [])
    assert source.asked == [("m", 0), ("m", 3), ("m", 3)]
    assert numbers(tmp_path) == [1, 2, 3, 4, 1025]


def test_files_that_were_moved_away_do_not_come_again(tmp_path: Path) -> None:
    source = device([1, 2, 3])
    pull(source, tmp_path)
    for path in (tmp_path / "m").iterdir():
        path.unlink()
    assert pull(source, tmp_path).models[0].records == 0


def test_an_older_state_beside_newer_files_takes_nothing_twice(tmp_path: Path) -> None:
    source = device([1, 2, 3])
    pull(source, tmp_path)
    old = (tmp_path / "captures.json").read_bytes()
    source.records["m"][4] = raw(4)
    pull(source, tmp_path)
    (tmp_path / "captures.json").write_bytes(old)
    assert pull(source, tmp_path).models[0].records == 0
    assert numbers(tmp_path) == [1, 2, 3, 4]


def test_a_connection_cut_at_any_byte_keeps_what_came_whole_and_goes_on(tmp_path: Path) -> None:
    source = device([1, 2])
    total = len(raw(1)) + len(raw(2))
    for cut in range(0, total, 7):
        folder = tmp_path / str(cut)
        source.cut = cut
        with pytest.raises(ChannelError) as caught:
            pull(source, folder)
        assert "goes on from there" in caught.value.hint
        there = numbers(folder) if list(folder.glob("m/*")) else []
        assert there == ([1] if cut >= len(raw(1)) else [])
        source.cut = None
        pull(source, folder)
        assert numbers(folder) == [1, 2]


def test_a_stream_that_ends_within_a_record_is_no_success(tmp_path: Path) -> None:
    source = device([1, 2])
    source.records["m"][2] = raw(2)[:-1]
    with pytest.raises(ChannelError, match="within a record"):
        pull(source, tmp_path)
    assert numbers(tmp_path) == [1]


def test_numbers_that_went_before_they_were_pulled_are_told(tmp_path: Path) -> None:
    source = device(range(5, 9))
    said: list[str] = []
    assert pull(source, tmp_path, report=said.append).models[0].gaps == [(1, 4)]
    assert "numbers 1 to 4 of m are gone already" in said
    source.records["m"] = {n: raw(n) for n in (20, 21)}
    result = pull(source, tmp_path)
    assert result.to_dict()["models"][0]["gaps"] == [{"first": 9, "last": 19}]
    assert numbers(tmp_path) == [5, 6, 7, 8, 20, 21]


def test_damaged_records_are_counted_and_left_out(tmp_path: Path) -> None:
    source = device([1, 2, 3])
    source.records["m"][2] = raw(2)[:-1] + b"!"
    (model,) = pull(source, tmp_path).models
    assert (model.records, model.damaged) == (2, 1)
    assert numbers(tmp_path) == [1, 3]


@BOTH
def test_versions_with_other_shapes_are_in_files_of_their_own(tmp_path: Path, form: str) -> None:
    source = device([1, 3])
    source.records["m"] |= {n: raw(n, size=5, version="2.0.0") for n in (2, 4)}
    pull(source, tmp_path, form=form)
    span = "000000000001-000000000004"
    assert names(tmp_path / "m") == [f"{span}.1of2.{form}", f"{span}.2of2.{form}"]
    found = list(captures.read(tmp_path))
    assert [(r.number, r.version) for r in found] == [
        *((1, "1.0.0"), (2, "2.0.0"), (3, "1.0.0"), (4, "2.0.0")),
    ]
    # Half of them, as a power cut leaves it, is none.
    (tmp_path / "m" / f"{span}.2of2.{form}").unlink()
    (tmp_path / "captures.json").unlink()
    pull(source, tmp_path, form=form)
    assert numbers(tmp_path) == [1, 2, 3, 4]


def test_a_large_pull_is_kept_in_files_that_fit_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgepack.captures.pulling.BATCH_RECORDS", 4)
    pull(device(range(1, 11)), tmp_path)
    assert len(names(tmp_path / "m")) == 3
    monkeypatch.setattr("edgepack.captures.pulling.BATCH_BYTES", 33)
    pull(device(range(1, 11), model="n"), tmp_path)
    assert len(names(tmp_path / "n")) == 5
    assert numbers(tmp_path) == [*range(1, 11), *range(1, 11)]


def test_models_are_chosen_by_name_and_all_are_taken_else(tmp_path: Path) -> None:
    source = Recording({"a": {1: raw(1, model="a")}, "b": {1: raw(1, model="b")}, "c": {}})
    assert [m.name for m in pull(source, tmp_path, ["b", "b"]).models] == ["b"]
    assert [m.name for m in pull(source, tmp_path).models] == ["a", "b"]
    with pytest.raises(DeviceError, match="pi has no captures of 'x'") as caught:
        pull(source, tmp_path, ["a", "x"])
    assert caught.value.hint == "It has of: a, b"


def test_a_device_without_captures_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="pi has captured nothing"):
        pull(Recording({}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_device_is_refused(tmp_path: Path) -> None:
    pull(device([1]), tmp_path)
    other = device([1, 2])
    other.device = "f" * 32
    with pytest.raises(ConfigError, match="holds captures of another device") as caught:
        pull(other, tmp_path)
    assert "--out DIR" in caught.value.hint
    assert numbers(tmp_path) == [1]


def test_a_device_that_counts_anew_is_told(tmp_path: Path) -> None:
    pull(device([1, 2, 3]), tmp_path)
    with pytest.raises(DeviceError, match="end at 1, but 3 was pulled before"):
        pull(device([1]), tmp_path)


def test_a_folder_that_cannot_be_made_or_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be made"):
        pull(device([1]), tmp_path / "file" / "out")
    (tmp_path / "m").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be made: File exists"):
        pull(device([1]), tmp_path)


def test_two_pulls_into_one_folder_are_refused(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(ConfigError, match="another pull writes into"):
        pull(device([1]), tmp_path)
    os.close(descriptor)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"format":2}', b'{"format":1,"device":"x"}']
)
def test_a_state_that_cannot_be_read_is_told(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "captures.json").write_bytes(damage)
    with pytest.raises(ConfigError, match=r"captures\.json cannot be read"):
        pull(device([1]), tmp_path)


def test_an_unknown_format_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'csv' is no format") as caught:
        pull(device([1]), tmp_path, form="csv")
    assert caught.value.hint == "Formats: npz, parquet"


def test_parquet_without_pyarrow_says_what_to_install_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    source = device([1])
    with pytest.raises(ConfigError, match="pyarrow, which is not installed") as caught:
        pull(source, tmp_path, form="parquet")
    assert caught.value.hint == "pip install 'edgepack[parquet]'"
    assert source.asked == []


KILLED = """
import os, signal, sys
from pathlib import Path
from edgepack.captures import pull
import edgepack.captures.pulling as module
import tests.capture_samples as samples

def pull_until(step, folder):
    left = step
    def audit(event, arguments):
        nonlocal left
        if event in ("open", "os.rename", "os.remove", "os.mkdir") and folder in str(arguments[0]):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    module.BATCH_RECORDS = 2
    records = {n: samples.raw(n, size=3 + n % 2) for n in range(1, 6)}
    sys.addaudithook(audit)
    pull(samples.Recording({"m": records}), Path(folder))

for step in range(200):
    child = os.fork()
    if child == 0:
        pull_until(step, f"{sys.argv[1]}/run{step}x")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status))
    if status == 0:
        break
"""


def test_a_pull_killed_at_any_step_leaves_only_whole_files_and_the_next_goes_on(
    tmp_path: Path,
) -> None:
    """Killed before each file operation in the folder, in turn, until one run comes through."""
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True
    )
    *killed, last = [int(code) for code in done.stdout.split()]
    assert last == 0
    assert set(killed) == {-signal.SIGKILL}
    assert len(killed) > 10
    for step in range(len(killed)):
        folder = tmp_path / f"run{step}x"
        there = numbers(folder) if list(folder.glob("m/*.npz")) else []
        assert there == sorted(set(there))
        source = Recording({"m": {n: raw(n, size=3 + n % 2) for n in range(1, 6)}})
        pull(source, folder)
        assert numbers(folder) == [1, 2, 3, 4, 5]
        assert not [name for name in names(folder) if name.endswith(".tmp")]


def test_the_result_is_json(tmp_path: Path) -> None:
    result = pull(device([1]), tmp_path)
    assert json.loads(json.dumps(result.to_dict()))["models"][0]["records"] == 1
