from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mqtt_monitor.hysteresis import State
from mqtt_monitor.store import Store, StoreError

from tests.native.fake_device import wait_until


def opened(path: Path, *, rows_most: int = 1000, bytes_most: int = 1 << 20) -> Store:
    return Store(path / "results.sqlite", rows_most=rows_most, bytes_most=bytes_most)


def bodies(store: Store, after: int = 0) -> list[object]:
    return [outgoing.body["n"] for outgoing in store.after(after, 10_000)]


def add(store: Store, *numbers: int) -> int:
    return store.commit(messages=[("t", {"n": number}) for number in numbers])


def test_messages_come_out_in_order_until_they_are_delivered(tmp_path: Path) -> None:
    store = opened(tmp_path)
    add(store, 1, 2, 3)
    first, *rest = store.after(0, 2)
    assert (first.topic, first.payload()) == ("t", b'{"id":1,"n":1}')
    assert [outgoing.id for outgoing in rest] == [2]
    assert bodies(store, after=first.id) == [2, 3]
    store.delivered(first.id)
    store.delivered(first.id)
    assert (store.pending, bodies(store)) == (2, [2, 3])


def test_ids_only_grow_also_when_all_was_delivered_and_the_store_opened_anew(
    tmp_path: Path,
) -> None:
    store = opened(tmp_path)
    add(store, 1)
    store.delivered(1)
    store.close()
    store = opened(tmp_path)
    add(store, 2)
    assert [outgoing.id for outgoing in store.after(0, 10)] == [2]


def test_states_and_digests_are_kept(tmp_path: Path) -> None:
    store = opened(tmp_path)
    state = State(alarm=True, windows=2, seconds=1.5, time=17.25)
    store.commit(source="a", digest=b"1" * 32, states={"r": state})
    store.close()
    store = opened(tmp_path)
    assert store.states("a") == {"r": state}
    assert store.states("b") == {}
    assert store.has_seen(b"1" * 32)
    for number in range(1000):
        store.commit(digest=b"%032d" % number)
    assert not store.has_seen(b"1" * 32)
    assert store.has_seen(b"%032d" % 999)


@pytest.mark.parametrize("limits", [{"rows_most": 10}, {"bytes_most": 10 * len('t{"n": 100}')}])
def test_beyond_a_limit_the_oldest_go_and_are_counted(
    tmp_path: Path, limits: dict[str, int]
) -> None:
    store = opened(tmp_path, **limits)
    dropped = sum(add(store, number) for number in range(100, 200))
    assert dropped == 90
    assert bodies(store) == list(range(190, 200))
    store.delivered(1)  # it was dropped: no harm
    store.close()
    assert opened(tmp_path, **limits).pending == 10


def test_the_file_stays_bounded_too(tmp_path: Path) -> None:
    store = opened(tmp_path, bytes_most=100_000)
    for _ in range(300):
        store.commit(messages=[("t", {"n": "x" * 5000})])
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert size < 100_000 + 8 * (1 << 20)
    store.close()
    assert (tmp_path / "results.sqlite").stat().st_size < 400_000


WRITER = """
import sys
from pathlib import Path
from mqtt_monitor.store import Store

store = Store(Path(sys.argv[1]), rows_most=10**6, bytes_most=10**9)
number = store.pending
while True:
    number += 1
    store.commit(digest=b"%032d" % number, messages=[("t", {"n": number}), ("a", {"n": number})])
    print(number, flush=True)
"""


def test_kill_9_in_the_middle_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    committed = tmp_path / "committed"
    for attempt in range(5):
        path = tmp_path / str(attempt)
        path.mkdir()
        with committed.open("w") as out:
            writer = subprocess.Popen(
                [sys.executable, "-c", WRITER, str(path / "results.sqlite")],
                stdout=out,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
            wait_until(lambda n=attempt: len(committed.read_text().split()) > 20 + 37 * n)  # type: ignore[misc]
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        last = int(committed.read_text().split()[-1])
        store = opened(path)
        numbers = bodies(store)
        # Each commit whole or not at all; the one after the last line may have been made, too.
        assert numbers[: 2 * last] == [n for n in range(1, last + 1) for _ in range(2)]
        assert numbers[2 * last :] in ([], [last + 1] * 2)
        assert store.has_seen(b"%032d" % last)
        store.close()


def test_a_file_that_is_no_store_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "results.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"^[^\n]*results\.sqlite: [^\n]+$"):
        opened(tmp_path)
    with pytest.raises(StoreError, match=r"^[^\n]*missing[^\n]+$"):
        Store(tmp_path / "missing" / "x", rows_most=1, bytes_most=1)
