"""The project's own files agree with the code, and with one another."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import edgepack
from docs.write_cli import CLI_MD, COMMANDS, help_text, reference

ROOT = Path(edgepack.__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not (ROOT / "pyproject.toml").exists(), reason="edgepack is not run from its checkout"
)


def commands(*group: str) -> list[str]:
    listed = help_text(*group).partition("Commands:\n")[2]
    return re.findall(r"^  ([a-z]+) ", listed, re.MULTILINE)


def test_the_changelog_begins_with_this_version() -> None:
    released = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(entry for entry in released if entry != "Unreleased") == edgepack.__version__


def test_docs_cli_md_is_what_the_commands_say() -> None:
    assert CLI_MD.read_text() == reference(), "make docs writes it anew"


def test_docs_cli_md_has_every_command() -> None:
    def every(*group: str) -> set[tuple[str, ...]]:
        below = [every(*group, name) for name in commands(*group)]
        return set().union(*below) if below else {group}

    assert every() == set(COMMANDS)


def test_every_command_takes_json() -> None:
    for command in COMMANDS:
        assert "--json" in help_text(*command), command


def test_commands_and_options_in_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text()
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    used = re.findall(r"^edgepack ([^\n#]*)", blocks, re.MULTILINE)
    used += re.findall(r"`edgepack ([a-z][^`]*)`", text)
    assert len(used) > 5
    for line in used:
        words = line.split()
        command = next((c for c in COMMANDS if tuple(words[: len(c)]) == c), None)
        assert command is not None, line
        options = {word for word in words if re.fullmatch(r"--?[a-z-]+", word)}
        missing = [option for option in options if f"{option} " not in help_text(*command)]
        assert not missing, line


def test_ci_runs_make_test_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert lines[:2] == ["#!/usr/bin/env bash", "set -euo pipefail"]
    assert [line for line in lines[2:] if not line.startswith("cd ")] == ["make test"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_scripts_are_valid_bash() -> None:
    for script in (ROOT / ".ci" / "run", ROOT / "tools" / "debian-packages"):
        subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.needs("make")
@pytest.mark.parametrize("target", ["demo", "test", "check", "bench", "wheel", "docs"])
def test_make_knows_the_targets_that_the_readme_names(target: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", target], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_everything_that_is_switched_off_says_why() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    start = lines.index("ignore = [") + 1
    ignored = lines[start : lines.index("]", start)]
    assert ignored
    assert all(re.fullmatch(r'  "[A-Z0-9]+", # .{10,}', line) for line in ignored)


def test_zig_is_pinned_to_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [entry for entry in project["dependencies"] if re.fullmatch(r"ziglang==[0-9.]+", entry)]


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
