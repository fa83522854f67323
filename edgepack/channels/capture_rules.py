"""Which requests a device captures: rules, set and asked for over SSH; the agent judges them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edgepack.channels.agent import Agent
from edgepack.channels.channel import ChannelOptions
from edgepack.channels.ssh_session import open_session


@dataclass(frozen=True)
class Threshold:
    """A value that no element of an output goes beyond without being captured."""

    output: str
    value: float

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the agent's rules."""
        return {"output": self.output, "value": self.value}


@dataclass(frozen=True, kw_only=True)
class CaptureRules:
    """Any condition that holds is enough; docs/capture.md has them one by one.

    Without any, only those requests are captured that ask for it.
    """

    always: bool = False
    every: int | None = None
    rate: float | None = None
    below: Threshold | None = None
    above: Threshold | None = None
    nan: bool = False
    max_bytes: int | None = None
    max_age_s: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The agent's form, without what is not said."""
        return {
            **({"always": True} if self.always else {}),
            **({} if self.every is None else {"every": self.every}),
            **({} if self.rate is None else {"rate": self.rate}),
            **({} if self.below is None else {"below": self.below.to_dict()}),
            **({} if self.above is None else {"above": self.above.to_dict()}),
            **({"nan": True} if self.nan else {}),
            **({} if self.max_bytes is None else {"max_bytes": self.max_bytes}),
            **({} if self.max_age_s is None else {"max_age_s": self.max_age_s}),
        }


def set_rules(
    url: str, model: str, rules: CaptureRules, *, options: ChannelOptions | None = None
) -> dict[str, Any]:
    """Replace the rules of ``model`` on the device behind ``url``.

    Returns the agent's answer: ``model``, and ``serving``, whether a server follows them already.
    """
    with _agent(url, options) as agent:
        return agent.call("capture", "set", model, json.dumps(rules.to_dict()))


def turn_off(url: str, model: str, *, options: ChannelOptions | None = None) -> dict[str, Any]:
    """Capture nothing of ``model`` any more; what there is stays."""
    with _agent(url, options) as agent:
        return agent.call("capture", "off", model)


def status(
    url: str, model: str | None = None, *, options: ChannelOptions | None = None
) -> list[dict[str, Any]]:
    """What is captured of ``model``, or of every model, in the agent's own form."""
    with _agent(url, options) as agent:
        answer = agent.call("capture", "status", *([model] if model else []))
    return [answer] if model else list(answer["models"])


@contextmanager
def _agent(url: str, options: ChannelOptions | None) -> Iterator[Agent]:
    with open_session(url, options or ChannelOptions()) as (session, place):
        yield Agent(session, place.root, url)
