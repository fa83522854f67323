from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgepack.channels.service import render_unit, unit_name
from tests.conftest import unavailable


def test_each_root_has_its_own_unit() -> None:
    assert unit_name("/var/lib/edgepack") == "edgepack-agent.service"
    assert unit_name("/opt/a b(x)") == "edgepack-agent-opt-a-b-x-.service"


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("folder", ["edgepack", "with space, (brackets) and %n"])
def test_unit_is_valid_whatever_the_root_is_called(tmp_path: Path, folder: str) -> None:
    root = tmp_path / folder
    binary = root / "bin/edgepack-agent"
    binary.parent.mkdir(parents=True)
    shutil.copy("/bin/true", binary)
    unit = tmp_path / "edgepack-agent.service"
    unit.write_text(render_unit(str(binary), str(root)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert complaints == []


@pytest.mark.needs("systemd-analyze")
def test_unit_leaves_the_agent_little_to_do_harm_with(tmp_path: Path) -> None:
    """By systemd's own measure, 0 to 10; a unit that restricts nothing has 9.6."""
    unit = tmp_path / "edgepack-agent.service"
    unit.write_text(render_unit("/bin/true", str(tmp_path)))
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "--offline" in done.stderr:
        unavailable("systemd-analyze is older than 250")
    assert done.returncode == 0, done.stdout
    assert "Overall exposure level" in done.stdout
