"""What tests of the compiler may use."""

from __future__ import annotations

import pytest

from edgepack.compiler import schedules


@pytest.fixture
def small_kernels_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads share kernels of any size, so that a test's small networks have parallel loops."""
    monkeypatch.setattr(schedules, "_SHARED_OPERATIONS", 0)
