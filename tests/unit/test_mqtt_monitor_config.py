from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mqtt_monitor.config import ConfigError, ModelConfig, load_config
from mqtt_monitor.window import BadMessage, Window, decode

import edgepack

TEMPLATE = Path(edgepack.__file__).parent / "templates" / "mqtt-monitor"


def good() -> dict[str, Any]:
    return {
        "broker": {"host": "localhost", "client_id": "c"},
        "topics": {"windows": "w/#", "results": "r", "actions": "a", "status": "s"},
        "model": {"name": "m", "input": "x"},
        "rule": [{"name": "r", "output": "y", "raise_at": 2, "clear_at": 1}],
    }


def write(path: Path, data: Any) -> Path:
    file = path / "monitor.json"
    file.write_text(data if isinstance(data, str) else json.dumps(data))
    return file


def test_the_example_is_a_configuration_and_says_what_json_says(tmp_path: Path) -> None:
    import tomllib

    example = TEMPLATE / "monitor.toml"
    config = load_config(example)
    assert config.rules[0].raise_seconds == 10.0
    assert config.model.columns == ("axial", "radial")
    assert load_config(write(tmp_path, tomllib.loads(example.read_text()))) == config


def test_the_readme_lists_every_key() -> None:
    readme = (TEMPLATE / "README.md").read_text()
    config = load_config(TEMPLATE / "monitor.toml")
    parts = [config.broker, config.topics, config.model, config.store, *config.rules]
    for part in parts:
        assert [key for key in vars(part) if f"{key}`" not in readme] == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"brokre": {}}, "the file knows no brokre; it knows broker, topics, model, "),
        ({"broker": {"host": "h"}}, r"\[broker\] needs client_id"),
        ({"broker": 3}, r"\[broker\] must be a table"),
        (
            {"broker": {"host": "h", "client_id": "c", "prot": 1}},
            r"\[broker\] knows no prot; it knows host, ",
        ),
        ({"broker": {"host": "h", "client_id": "c", "port": "1"}}, "port must be int, not '1'"),
        ({"broker": {"host": "h", "client_id": "c", "port": True}}, "port must be int, not True"),
        ({"broker": {"host": "h", "client_id": "c", "port": 0}}, "port 0 is no port"),
        ({"broker": {"host": "h", "client_id": "c", "key": "k"}}, "belong together"),
        ({"model": {"name": "m", "input": "x", "columns": [1]}}, "must be a list of strings"),
        ({"rule": []}, r"no \[\[rule\]\]"),
        ({"rule": good()["rule"] * 2}, "two rules have one name"),
        (
            {"rule": [{"name": "r", "output": "y", "raise_at": 1, "clear_at": 1}]},
            "rule 1: .* equal",
        ),
        ({"store": {"rows_most": 0}}, "rows_most must be above zero, not 0"),
        (
            {"topics": {"windows": "w", "results": "r/#", "actions": "a", "status": "s"}},
            "results is no topic",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^[^\n]*monitor\.json: [^\n]*{reason}[^\n]*$"):
        load_config(write(tmp_path, good() | change))


@pytest.mark.parametrize("text", ["{", "[]", '{"a": nope}'])
def test_what_cannot_be_parsed_is_told_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"^[^\n]*monitor\.json: [^\n]+$"):
        load_config(write(tmp_path, text))


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mqtt_monitor", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"nope": 1}, "knows no nope"),
        (
            {"broker": {"host": "h", "client_id": "c", "ca": "/nowhere.crt"}},
            "ca /nowhere.crt: No such",
        ),
        (
            {"broker": {"host": "h", "client_id": "c", "certificate": "/n.crt", "key": "/n.key"}},
            "certificate, key /n.crt, /n.key: No such file",
        ),
        ({"store": {"path": "/nowhere/results.sqlite"}}, "/nowhere/results.sqlite: unable to open"),
    ],
)
def test_the_program_ends_with_2_and_one_line(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    done = run(write(tmp_path, good() | change))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert reason in done.stderr


def test_without_a_configuration_it_says_how_it_is_called() -> None:
    for arguments in ((), ("--help",), ("/nowhere.json",)):
        done = run(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)


# ---- windows -------------------------------------------------------------------------------------

PLAIN = ModelConfig(name="m", input="x")
COLUMNS = ModelConfig(name="m", input="x", field="data.samples", columns=("b", "a"), time_field="t")


def test_windows_are_read_flat_nested_and_by_columns() -> None:
    assert decode(b'{"values": [1, 2.5]}', PLAIN) == Window(None, (1, 2.5))
    assert decode(b'{"time": 3, "values": [[1, 2], [3, 4]]}', PLAIN) == Window(3.0, (1, 2, 3, 4))
    samples = b'{"t": 0.5, "data": {"samples": [{"a": 1, "b": 2}, {"b": 4, "a": 3, "c": 5}]}}'
    assert decode(samples, COLUMNS) == Window(0.5, (2, 1, 4, 3))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[1, 2]",
        b"17",
        b"{}",
        b'{"values": 3}',
        b'{"values": [1, "2"]}',
        b'{"values": [1, null]}',
        b'{"values": [1, true]}',
        b'{"values": [1, NaN]}',
        b'{"values": [1, 1e999]}',
        b'{"values": [1' + b"0" * 400 + b"]}",
        b'{"values": [1], "time": "noon"}',
        b'{"values": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"values": [' + b"1," * (3 << 20) + b"1]}",
    ],
)
def test_what_is_no_window_is_told_in_one_line(payload: bytes) -> None:
    with pytest.raises(BadMessage, match=r"^[^\n]+$"):
        decode(payload, PLAIN)


def test_a_sample_without_a_column_is_no_window() -> None:
    with pytest.raises(BadMessage, match="a sample has no b"):
        decode(b'{"data": {"samples": [{"a": 1}]}}', COLUMNS)
