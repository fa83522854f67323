"""Windows in, results and actions out. One thread does it all; the broker's thread feeds it events."""

from __future__ import annotations

import hashlib
import math
import queue
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgepack_client import AgentError, Client

from mqtt_monitor.broker import Broker, Published, Received
from mqtt_monitor.config import Config
from mqtt_monitor.hysteresis import Rule, State, judge
from mqtt_monitor.store import Store, StoreError
from mqtt_monitor.window import BadMessage, Window, decode

_IN_FLIGHT_MOST = 20  # messages that the broker has not acknowledged; paho sends no more at once
_ATTEMPTS = 3  # for a window on which the model fails
_RETRY_SECONDS = 1.0


@dataclass
class Counts:
    """What is reported; since the process began."""

    windows: int = 0
    bad: int = 0
    repeated: int = 0
    dropped: int = 0
    last_bad: str = ""


class _TryLater(Exception):
    """The agent does not answer, or has not got the model: the window waits."""


class Monitor:
    """Call run(); stop() from anywhere ends it."""

    def __init__(
        self,
        config: Config,
        broker: Broker,
        agent: Client,
        store: Store,
        log: Callable[[str], None],
    ) -> None:
        self._config = config
        self._broker = broker
        self._agent = agent
        self._store = store
        self._log = log
        self._waiting: deque[Received] = deque()
        self._in_flight: dict[int, int] = {}  # the store's id by paho's number
        self._last_sent = 0
        self._shape: list[int] | None = None
        self._attempts = 0
        self._retry_at = 0.0
        self._counts = Counts()
        self._reported: dict[str, Any] = {}
        self._report_at = 0.0
        self._stopping = False

    def stop(self) -> None:
        """End after the window that is being worked on. A signal handler may call this."""
        self._stopping = True
        self._broker.events.put(None)

    def run(self) -> None:
        """Work until stop()."""
        self._broker.start()
        try:
            while not self._stopping:
                self._take_events()
                if self._waiting and time.monotonic() >= self._retry_at:
                    self._work(self._waiting[0])
                self._report()
                self._send()
        finally:
            self._broker.stop()

    # ---- events --------------------------------------------------------------------------------

    def _take_events(self) -> None:
        """Those that are there; if there is nothing to do, wait for one."""
        try:
            event = self._broker.events.get(timeout=self._idle_seconds())
            while True:
                if isinstance(event, Received):
                    self._waiting.append(event)
                elif isinstance(event, Published):
                    self._delivered(event.mid)
                event = self._broker.events.get_nowait()
        except queue.Empty:
            return

    def _delivered(self, mid: int) -> None:
        try:
            self._store.delivered(self._in_flight.pop(mid, 0))
        except StoreError as error:
            self._log(f"a delivered message stays in the store, to be sent again: {error}")

    def _idle_seconds(self) -> float:
        now = time.monotonic()
        until = self._report_at if self._summary() != self._reported else math.inf
        if self._waiting:
            until = min(until, self._retry_at)
        return min(max(until - now, 0.0), 3600.0)

    # ---- one window ----------------------------------------------------------------------------

    def _work(self, message: Received) -> None:
        """Judge and commit, then acknowledge: what is cut off in between comes once more."""
        digest = hashlib.sha256(message.topic.encode() + b"\0" + message.payload).digest()
        try:
            if message.duplicate and self._store.has_seen(digest):
                self._counts.repeated += 1
            else:
                self._judge(message, digest)
        except (_TryLater, StoreError) as error:
            if not self._retry_at:
                self._log(f"windows wait: {error}")
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            return
        except BadMessage as error:
            self._counts.bad += 1
            self._counts.last_bad = f"{message.topic}: {error}"
            self._log(f"bad message on {self._counts.last_bad}")
        self._attempts, self._retry_at = 0, 0.0
        self._waiting.popleft()
        self._broker.acknowledge(message)

    def _judge(self, message: Received, digest: bytes) -> None:
        window = decode(message.payload, self._config.model)
        scores = self._scores(window)
        now = time.monotonic() if window.time is None else window.time
        before = self._store.states(message.topic)
        after = {
            rule.name: judge(rule, before.get(rule.name, State()), scores[rule.name], now)
            for rule in self._config.rules
        }
        facts = {"source": message.topic, "time": window.time, "received": round(time.time(), 3)}
        result = {
            "scores": {name: None if math.isnan(v) else v for name, v in scores.items()},
            "alarms": [name for name, state in after.items() if state.alarm],
        }
        messages: list[tuple[str, Mapping[str, Any]]] = [
            (self._config.topics.results, facts | result)
        ]
        for rule in self._config.rules:
            if after[rule.name].alarm != before.get(rule.name, State()).alarm:
                action = self._action(rule, after[rule.name], scores[rule.name])
                messages.append((self._config.topics.actions, facts | action))
        dropped = self._store.commit(
            source=message.topic, digest=digest, states=after, messages=messages
        )
        self._counts.dropped += dropped
        self._counts.windows += 1

    def _action(self, rule: Rule, state: State, score: float) -> dict[str, Any]:
        name = "alarm" if state.alarm else "normal"
        self._log(f"{rule.name}: {name} (score {score:g})")
        return {"rule": rule.name, "state": name, "score": score, "action": rule.action}

    def _scores(self, window: Window) -> dict[str, float]:
        """Each rule's score. Raises BadMessage if the window does not fit the model, or breaks it."""
        model = self._config.model
        try:
            tensor = _reshaped(window.values, self._input_shape())
            outputs = sorted({rule.output for rule in self._config.rules})
            answer = self._agent.infer(model.name, {model.input: tensor}, outputs)
        except AgentError as error:
            self._shape = None
            raise self._failure(error) from error
        except ValueError as error:
            raise BadMessage(str(error)) from error
        return {
            rule.name: _element(answer[rule.output].values, rule) for rule in self._config.rules
        }

    def _input_shape(self) -> list[int]:
        """The model's; asked once, and again when it no longer fits."""
        if self._shape is None:
            model = self._config.model
            shapes = {i["name"]: i["shape"] for i in self._agent.metadata(model.name)["inputs"]}
            if model.input not in shapes:
                raise _TryLater(f"{model.name} has no input {model.input}, but {', '.join(shapes)}")
            self._shape = list(shapes[model.input])
        return self._shape

    def _failure(self, error: AgentError) -> Exception:
        self._attempts += error.status == 500
        if error.status in (400, 413) or self._attempts >= _ATTEMPTS:
            return BadMessage(f"the model does not take it: {error}")
        return _TryLater(str(error))

    # ---- messages out --------------------------------------------------------------------------

    def _send(self) -> None:
        """In the order of the store. paho repeats what was under way when a connection broke."""
        room = _IN_FLIGHT_MOST - len(self._in_flight)
        if room <= 0 or not self._store.pending or not self._broker.is_connected:
            return
        for outgoing in self._store.after(self._last_sent, room):
            mid = self._broker.publish(outgoing.topic, outgoing.payload())
            self._in_flight[mid] = outgoing.id
            self._last_sent = outgoing.id

    def _summary(self) -> dict[str, Any]:
        return asdict(self._counts)

    def _report(self) -> None:
        now = time.monotonic()
        if now >= self._report_at and self._summary() != self._reported:
            self._reported = self._summary()
            self._report_at = now + self._config.report.seconds
            status = dict(self._reported, pending=self._store.pending)
            try:
                self._counts.dropped += self._store.commit(
                    messages=[(self._config.topics.status, status)]
                )
            except StoreError as error:
                self._log(f"no status: {error}")


def _reshaped(values: Sequence[float], shape: list[int]) -> Any:
    """Nested lists, so that the client gives them the model's dtype."""
    if len(values) != math.prod(shape):
        raise BadMessage(f"{len(values)} values, not {math.prod(shape)} (shape {shape})")
    nested: Any = list(values)
    for extent in reversed(shape[1:]):
        nested = [nested[i : i + extent] for i in range(0, len(nested), extent)]
    return nested if shape else nested[0]


def _element(values: Any, rule: Rule) -> float:
    if rule.index >= len(values):
        raise BadMessage(
            f"rule {rule.name}: {rule.output} has {len(values)} elements, none at {rule.index}"
        )
    return float(values[rule.index])
