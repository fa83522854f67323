"""The configuration: one TOML or JSON file, read once and strictly."""

from __future__ import annotations

import json
import typing
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from mqtt_monitor.hysteresis import Rule


class ConfigError(Exception):
    """What is wrong with the configuration, in one line."""


@dataclass(frozen=True)
class BrokerConfig:
    """Where the MQTT broker is, and who we are: the certificate says it, or it is said in clear."""

    host: str
    client_id: str
    ca: str = ""
    certificate: str = ""
    key: str = ""
    port: int = 8883
    tls: bool = True
    keepalive_seconds: int = 60
    reconnect_seconds: float = 1.0
    reconnect_seconds_most: float = 60.0


@dataclass(frozen=True)
class TopicsConfig:
    """Topics; ``windows`` may hold MQTT's wildcards, and each topic then has states of its own."""

    windows: str
    results: str
    actions: str
    status: str


@dataclass(frozen=True)
class ModelConfig:
    """The model, and where in a message its input is."""

    name: str
    input: str
    socket: str = "/var/lib/edgepack/run/agent.sock"
    timeout_seconds: float = 10.0
    field: str = "values"
    columns: tuple[str, ...] = ()
    time_field: str = "time"


@dataclass(frozen=True)
class StoreConfig:
    """Results that the broker has not got yet; beyond either limit the oldest go."""

    path: str = "/var/lib/edgepack-mqtt-monitor/results.sqlite"
    rows_most: int = 100_000
    bytes_most: int = 64 << 20


@dataclass(frozen=True)
class ReportConfig:
    """How often the counts are published when they have changed."""

    seconds: float = 60.0


@dataclass(frozen=True)
class Config:
    """The whole file."""

    broker: BrokerConfig
    topics: TopicsConfig
    model: ModelConfig
    rules: tuple[Rule, ...]
    store: StoreConfig
    report: ReportConfig


_SECTIONS: dict[str, Any] = {
    "broker": BrokerConfig,
    "topics": TopicsConfig,
    "model": ModelConfig,
    "store": StoreConfig,
    "report": ReportConfig,
}


def load_config(path: Path) -> Config:
    """Read the file. Raises ConfigError."""
    try:
        data = _parse(path)
        _only(data, [*_SECTIONS, "rule"], "the file")
        rules = data.get("rule")
        if not isinstance(rules, list) or not rules:
            raise ConfigError("there is no [[rule]]: without one nothing is ever judged")
        sections = {name: _section(name, kind, data) for name, kind in _SECTIONS.items()}
        config = Config(
            rules=tuple(_build(Rule, rule, f"rule {n}") for n, rule in enumerate(rules, 1)),
            **sections,
        )
        _check(config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return config


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        data = _toml(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"cannot be parsed: {error}".splitlines()[0]) from error
    if not isinstance(data, dict):
        raise ConfigError("must hold one table or object")
    return data


def _toml(text: str) -> Any:
    try:
        import tomllib
    except ImportError as error:
        raise ConfigError("TOML needs Python 3.11: write the same as JSON, into a .json") from error
    return tomllib.loads(text)


def _section(name: str, kind: Any, data: dict[str, Any]) -> Any:
    return _build(kind, data.get(name, {}), f"[{name}]")


def _build(kind: Any, values: Any, where: str) -> Any:
    """One dataclass from one table: every key known, every type right, none missing."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a table")
    types = typing.get_type_hints(kind)
    _only(values, list(types), where)
    arguments = {}
    for field in fields(kind):
        if field.name in values:
            what = f"{where} {field.name}"
            arguments[field.name] = _typed(values[field.name], types[field.name], what)
        elif field.default is MISSING:
            raise ConfigError(f"{where} needs {field.name}")
    try:
        return kind(**arguments)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _only(values: dict[str, Any], known: list[str], where: str) -> None:
    for key in values:
        if key not in known:
            raise ConfigError(f"{where} knows no {key}; it knows {', '.join(known)}")


def _typed(value: Any, kind: Any, what: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind == tuple[str, ...]:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise ConfigError(f"{what} must be a list of strings")
    if type(value) is not kind:
        raise ConfigError(f"{what} must be {kind.__name__}, not {value!r}")
    return value


def _check(config: Config) -> None:
    names = [rule.name for rule in config.rules]
    if len(set(names)) < len(names):
        raise ConfigError("two rules have one name")
    if not config.broker.client_id:
        raise ConfigError("[broker] client_id is empty: the broker keeps the session under it")
    if not 0 < config.broker.port < 65536:
        raise ConfigError(f"[broker] port {config.broker.port} is no port")
    if bool(config.broker.certificate) != bool(config.broker.key):
        raise ConfigError("[broker] certificate and key belong together")
    for name in ("results", "actions", "status"):
        topic = getattr(config.topics, name)
        if not topic or "+" in topic or "#" in topic:
            raise ConfigError(f"[topics] {name} is no topic to publish to: {topic!r}")
    positive = {
        "[broker] keepalive_seconds": config.broker.keepalive_seconds,
        "[broker] reconnect_seconds": config.broker.reconnect_seconds,
        "[model] timeout_seconds": config.model.timeout_seconds,
        "[store] rows_most": config.store.rows_most,
        "[store] bytes_most": config.store.bytes_most,
        "[report] seconds": config.report.seconds,
    }
    for name, value in positive.items():
        if value <= 0:
            raise ConfigError(f"{name} must be above zero, not {value}")
    if config.broker.reconnect_seconds_most < config.broker.reconnect_seconds:
        raise ConfigError("[broker] reconnect_seconds_most is below reconnect_seconds")
