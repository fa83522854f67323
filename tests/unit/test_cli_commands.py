"""Commands that need no compiler: what they print, in words and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgepack.cli import main
from edgepack.package import read_package
from edgepack.targets import target_names
from edgepack.trust import load_public
from tests import package_samples

Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in ``tmp_path`` with ``--json``; returns its exit code and its object."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, Any]:
        capfd.readouterr()
        code = main([*arguments, "--json"])
        return code, json.loads(capfd.readouterr().out)

    return call


@pytest.fixture
def words(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """As ``run``, without ``--json``: exit code and what stands on stdout."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        code = main(list(arguments))
        return code, capfd.readouterr().out

    return call


@pytest.fixture
def unsigned(tmp_path: Path) -> Path:
    path = tmp_path / "demo.epk"
    package_samples.write(path, "raspberrypi4", "host")
    return path


@pytest.fixture
def signed(run: Run, unsigned: Path) -> Path:
    assert run("keys", "new", "release.key")[0] == 0
    assert run("sign", "demo.epk", "--key", "release.key")[0] == 0
    return unsigned


def test_targets_lists_every_profile(run: Run) -> None:
    code, answer = run("targets")
    assert code == 0
    assert [profile["name"] for profile in answer["targets"]] == list(target_names())


@pytest.mark.parametrize("name", target_names())
def test_targets_shows_a_profile_in_full_as_json_and_in_words(
    name: str, run: Run, words: Any
) -> None:
    code, answer = run("targets", name)
    assert (code, answer["name"]) == (0, name)
    code, text = words("targets", name)
    assert code == 0
    assert all(key in text for key in answer)


@pytest.mark.parametrize("kind", ["ecdsa-p256", "ed25519"])
def test_a_new_key_pair_has_one_id_on_both_sides(kind: str, run: Run, tmp_path: Path) -> None:
    code, made = run("keys", "new", "a.key", "--type", kind)
    assert code == 0
    assert run("keys", "show", "a.pub") == (
        0,
        {"type": kind, "key_id": made["key_id"], "private": False},
    )
    assert run("keys", "show", "a.key")[1]["private"] is True
    assert load_public(tmp_path / "a.pub").key_id == made["key_id"]
    assert (tmp_path / "a.key").stat().st_mode & 0o777 == 0o600


def test_a_key_is_never_written_over(run: Run) -> None:
    assert run("keys", "new", "a.key")[0] == 0
    code, answer = run("keys", "new", "a.key")
    assert (code, answer["error"]["class"]) == (8, "TrustError")


@pytest.mark.parametrize("kind", ["rsa", ""])
def test_an_unknown_kind_of_key_is_a_usage_error(kind: str, run: Run) -> None:
    code, answer = run("keys", "new", "a.key", "--type", kind)
    assert (code, answer["error"]["class"]) == (2, "UsageError")


def test_inspect_shows_what_a_package_holds(run: Run, words: Any, unsigned: Path) -> None:
    code, found = run("inspect", "demo.epk")
    package = read_package(unsigned)
    assert code == 0
    assert (found["name"], found["version"]) == (package.name, package.version)
    assert found["digest"] == package.digest
    assert found["inputs"] == [spec.to_dict() for spec in package.targets[0].inputs]
    assert found["outputs"] == [spec.to_dict() for spec in package.targets[0].outputs]
    assert [target["name"] for target in found["targets"]] == ["raspberrypi4", "host"]
    assert found["targets"][0]["digests"]["weights"] == package.targets[0].weights
    assert found["signatures"] == []
    code, text = words("inspect", "demo.epk")
    assert code == 0
    assert package.targets[1].manifest in text


def test_sign_adds_signatures_and_verify_names_the_keys(run: Run, signed: Path) -> None:
    first = run("inspect", "demo.epk")[1]
    second_key = run("keys", "new", "second.key", "--type", "ed25519")[1]["key_id"]
    code, answer = run("sign", "demo.epk", "--key", "second.key", "-o", "both.epk")
    assert code == 0
    assert answer["package"] == "both.epk"
    assert sorted(answer["signatures"]) == sorted([*first["signatures"], second_key])
    assert answer["digest"] == first["digest"]
    assert run("inspect", "demo.epk")[1] == first
    code, answer = run("verify", "both.epk", "--trust", "second.pub")
    assert (code, answer["ok"], answer["keys"]) == (0, True, [second_key])


def test_verify_fails_by_the_name_of_the_check(run: Run, signed: Path, tmp_path: Path) -> None:
    def failure(*arguments: str) -> tuple[int, str]:
        code, answer = run("verify", *arguments)
        assert (answer["ok"], set(answer)) == (False, {"ok", "check", "reason"})
        assert answer["reason"]
        return code, answer["check"]

    run("keys", "new", "other.key")
    assert failure("demo.epk", "--trust", "other.pub") == (8, "key")
    assert failure("demo.epk", "--trust", "release.pub", "--installed", "9.0.0") == (8, "version")
    package_samples.write(tmp_path / "bare.epk", "host")
    assert failure("bare.epk", "--trust", "release.pub") == (8, "signature")
    data = signed.read_bytes()
    (tmp_path / "cut.epk").write_bytes(data[:-700])
    assert failure("cut.epk", "--trust", "release.pub") == (7, "package")
    middle = data.index(b"weights that targets share")
    (tmp_path / "flipped.epk").write_bytes(data[:middle] + b"W" + data[middle + 1 :])
    assert failure("flipped.epk", "--trust", "release.pub") == (8, "digest")


def test_verify_says_in_words_what_it_refuses(words: Any, signed: Path) -> None:
    code, text = words("verify", "demo.epk", "--trust", "release.pub", "--installed", "9.0.0")
    assert code == 8
    assert text.startswith("refused, check version: ")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("inspect none.epk", 3),
        ("inspect text.epk", 7),
        ("inspect text.onnx", 4),
        ("inspect .", 4),
        ("verify none.epk --trust release.pub", 7),
        ("verify demo.epk --trust none.pub", 8),
        ("verify demo.epk --trust release.key", 8),
        ("verify demo.epk --trust release.pub --installed 1", 3),
        ("verify demo.epk", 2),
        ("sign demo.epk --key release.pub", 8),
        ("sign demo.epk --key text.onnx", 8),
        ("run demo.epk", 2),
        ("run demo.epk --input x=none.npy", 3),
        ("run demo.epk --input x", 3),
        ("run demo.epk --input nope=x.npy", 3),
        ("bench demo.epk --threads 0", 2),
        ("bench demo.epk --seconds nan", 2),
        ("compile none.onnx --target host", 4),
        ("compile text.onnx --target host", 4),
        ("compile text.onnx --target nope", 3),
        ("compile text.onnx --target host --target host", 3),
        ("compile text.onnx --target host --input x=1,a", 3),
        ("compile text.onnx --target host --version 1.0", 3),
        ("compile text.onnx --target host --name Ab", 3),
        ("compile text.onnx --target host --tolerance -1", 2),
        ("push demo.epk --to nowhere", 3),
        ("push bare.epk --to dir:out", 8),
        ("push demo.epk --to ssh://127.0.0.1:1/x", 9),
        ("device status dir:out", 3),
        ("device events dir:out", 3),
        ("device setup ssh://127.0.0.1:1/x --target nope", 3),
        ("device capture set dir:out m", 3),
        ("device capture set ssh://127.0.0.1:1/x m --below score", 3),
        ("device capture set ssh://127.0.0.1:1/x m --max-bytes 64T", 3),
        ("device capture set ssh://127.0.0.1:1/x m --max-age 30", 3),
        ("device capture set ssh://127.0.0.1:1/x m --max-age 1w", 3),
    ],
)
def test_bad_input_is_one_clear_line_and_its_class_exit_code(
    arguments: str, code: int, signed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.onnx").write_text("this is not a model")
    (tmp_path / "text.epk").write_text("this is not a package")
    package_samples.write(tmp_path / "bare.epk", "host")
    capfd.readouterr()
    assert main(arguments.split()) == code
    out, err = capfd.readouterr()
    if "verify none.epk" in arguments:
        assert out.count("\n") == 1
    else:
        assert out == ""
        said = err[err.index("error: ") :].splitlines()  # after the steps that it had taken
        assert [line.split(": ")[0] for line in said] in (["error"], ["error", "hint"])
    assert "Traceback" not in err
    assert "internal error" not in err


def test_push_into_a_directory_tells_what_travelled(run: Run, signed: Path, tmp_path: Path) -> None:
    code, first = run("push", "demo.epk", "--to", "dir:out", "--trust", "release.pub")
    assert code == 0
    assert (first["model"], first["version"]) == ("demo", "1.2.0")
    assert first["sent_blobs"] > 0
    assert (tmp_path / "out" / "models" / "demo.json").is_file()
    code, again = run("push", "demo.epk", "--to", "dir:out")
    assert (code, again["sent_blobs"], again["sent_bytes"]) == (0, 0, 0)
    assert again["skipped_blobs"] == first["sent_blobs"]


def test_push_refuses_what_the_given_key_did_not_sign(
    run: Run, signed: Path, tmp_path: Path
) -> None:
    run("keys", "new", "other.key")
    code, answer = run("push", "demo.epk", "--to", "dir:out", "--trust", "other.pub")
    assert (code, answer["error"]["check"]) == (8, "key")
    assert not (tmp_path / "out").exists()
