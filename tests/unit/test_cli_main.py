"""The entry point: start-up, errors, exit codes, and what goes to which stream."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from edgepack import errors, targets
from edgepack.cli import main
from edgepack.cli import main as entry

HEAVY = "tvm onnx onnxruntime onnxsim numpy boto3 paramiko cryptography ziglang rich"


def subclasses(cls: type[errors.EdgepackError]) -> list[type[errors.EdgepackError]]:
    return [found for sub in cls.__subclasses__() for found in (sub, *subclasses(sub))]


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(name: str) -> Any:
        raise error

    monkeypatch.setattr(targets, "load_target", fail)


@pytest.mark.parametrize("command", [[], ["push"], ["device"], ["compile"], ["keys", "new"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys; from edgepack.cli import main; assert main(sys.argv[2:]) == 0;"
        "print(sorted(set(sys.argv[1].split()) & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, HEAVY, *command, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"


def test_help_takes_less_than_400_ms_of_a_processor() -> None:
    """Of its time, not of a clock's: others may be busy on this machine."""

    def start() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "edgepack", "--help"], capture_output=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert any(start() < 0.4 for _ in range(10))


def test_without_arguments_it_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_version_is_the_package_version(capsys: pytest.CaptureFixture[str]) -> None:
    from edgepack import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"edgepack {__version__}\n"


def test_every_error_class_has_its_own_exit_code() -> None:
    codes = [cls.exit_code for cls in subclasses(errors.EdgepackError)]
    assert len(set(codes)) == len(codes)
    assert not {0, 1, 2} & set(codes)


@pytest.mark.parametrize("cls", subclasses(errors.EdgepackError), ids=lambda cls: cls.__name__)
def test_an_error_is_one_line_a_hint_and_its_class_exit_code(
    cls: type[errors.EdgepackError],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fail_with(monkeypatch, cls("it broke", "mend it"))
    assert main(["targets", "x"]) == cls.exit_code
    assert capfd.readouterr() == ("", "error: it broke\nhint: mend it\n")


@pytest.mark.parametrize("cls", subclasses(errors.EdgepackError), ids=lambda cls: cls.__name__)
def test_an_error_is_one_json_object_with_json(
    cls: type[errors.EdgepackError],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fail_with(monkeypatch, cls("it broke", "mend it"))
    assert main(["targets", "x", "--json"]) == cls.exit_code
    answer = json.loads(capfd.readouterr().out)["error"]
    assert (
        answer.items() >= {"class": cls.__name__, "message": "it broke", "hint": "mend it"}.items()
    )


def test_a_failed_check_is_named_in_the_json_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, errors.TrustError("too old", check="version"))
    assert main(["targets", "x", "--json"]) == 8
    assert json.loads(capfd.readouterr().out)["error"]["check"] == "version"


@pytest.mark.parametrize("arguments", [["nope"], ["compile"], ["targets", "--nope"], ["device"]])
def test_a_usage_error_exits_2_and_is_an_object_with_json(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capfd.readouterr().err.startswith("error: ")
    assert main([*arguments, "--json"]) == 2
    out, err = capfd.readouterr()
    error = json.loads(out)["error"]
    assert error["class"] == "UsageError"
    assert error["hint"].endswith("--help")
    assert "Traceback" not in err


def test_a_bug_is_one_line_that_says_how_to_report_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EDGEPACK_DEBUG", raising=False)
    fail_with(monkeypatch, ZeroDivisionError("by zero\nsecond line"))
    assert main(["targets", "x"]) == 1
    message, hint = capfd.readouterr().err.splitlines()
    assert message == "error: internal error: ZeroDivisionError: by zero"
    assert "EDGEPACK_DEBUG=1" in hint


@pytest.mark.parametrize(("flag", "variable"), [(["--debug"], ""), ([], "1")])
def test_a_traceback_is_shown_when_asked_for(
    flag: list[str],
    variable: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EDGEPACK_DEBUG", variable)
    fail_with(monkeypatch, ZeroDivisionError("by zero"))
    assert main([*flag, "targets", "x"]) == 1
    assert "Traceback (most recent call last)" in capfd.readouterr().err


def test_an_interrupt_exits_130_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert main(["targets", "x"]) == 130
    assert capfd.readouterr().err == "error: interrupted\n"


@pytest.mark.parametrize("error", [RuntimeError("from C++"), errors.CompileError("lowering")])
def test_an_interrupt_that_a_library_turned_into_its_own_error_is_one(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> Any:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt:
            raise error from None

    monkeypatch.setattr(targets, "load_target", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it
    try:
        assert main(["targets", "x", "--json"]) == 130
        assert json.loads(capfd.readouterr().out)["error"]["class"] == "Interrupted"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_reader_that_goes_away_ends_it_quietly(flags: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "edgepack", "targets", *flags]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_with_json_nothing_else_reaches_stdout(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    real = targets.load_target

    def noisy(name: str) -> targets.Target:
        print("from Python")
        subprocess.run(["echo", "from a child"], check=True)
        os.write(1, b"from C\n")
        return real(name)

    monkeypatch.setattr(targets, "load_target", noisy)
    assert main(["targets", "raspberrypi4", "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["cpu"] == "cortex-a72"
    assert all(noise in err for noise in ("from Python", "from a child", "from C"))


def test_stdout_is_given_back_after_a_json_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert entry(["targets", "raspberrypi4", "--json"]) == 0
    capfd.readouterr()
    os.write(1, b"mine again\n")
    assert capfd.readouterr().out == "mine again\n"
