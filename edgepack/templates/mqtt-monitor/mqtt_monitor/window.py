"""One message with a window of sensor samples: its JSON, its time, and the tensor in it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mqtt_monitor.config import ModelConfig

_BYTES_MOST = 4 << 20


class BadMessage(Exception):
    """Why a message is no window, in one line."""


@dataclass(frozen=True)
class Window:
    """``time`` is the sender's, in seconds; None if the message has none."""

    time: float | None
    values: tuple[int | float, ...]


def decode(payload: bytes, model: ModelConfig) -> Window:
    """Read ``{"time": 17.5, "values": [[…], …]}``, under the names that the configuration gives.

    With ``columns`` each sample is an object, and these are its keys in the model's order.

    Raises:
        BadMessage: It is something else, or holds what is no finite number.
    """
    if len(payload) > _BYTES_MOST:
        raise BadMessage(f"{len(payload)} bytes are more than {_BYTES_MOST}")
    try:
        message = json.loads(payload.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"not JSON: {error}".splitlines()[0]) from error
    values = _at(message, model.field)
    if model.columns:
        values = [_row(sample, model.columns) for sample in _list(values, model.field)]
    time = _at(message, model.time_field, None)
    if time is not None and not _is_number(time):
        raise BadMessage(f"{model.time_field} is no number")
    return Window(None if time is None else float(time), tuple(_numbers(values, model.field)))


def _at(message: Any, path: str, *default: Any) -> Any:
    """The value at ``a.b.c``."""
    for key in path.split("."):
        if not isinstance(message, dict) or key not in message:
            if default:
                return default[0]
            raise BadMessage(f"there is no {path}")
        message = message[key]
    return message


def _list(values: Any, name: str) -> list[Any]:
    if not isinstance(values, list):
        raise BadMessage(f"{name} is no list")
    return values


def _row(sample: Any, columns: Sequence[str]) -> list[Any]:
    for column in columns:
        if not isinstance(sample, dict) or column not in sample:
            raise BadMessage(f"a sample has no {column}")
    return [sample[column] for column in columns]


def _numbers(values: Any, name: str) -> Iterator[int | float]:
    for value in _list(values, name):
        if isinstance(value, list):
            yield from _numbers(value, name)
        elif _is_number(value):
            yield value
        else:
            raise BadMessage(f"{name} holds {str(value)[:40]!r}, which is no finite number")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
