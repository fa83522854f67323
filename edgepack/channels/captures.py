"""A device's captures over SSH: its agent lists them, and streams the records of a model.

``edgepack-agent capture read NAME --after N`` writes whole records and nothing else; that it exits with 0
tells the end of them from a cut.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from edgepack.artefacts import CapturedModel, DeviceCaptures
from edgepack.channels.agent import Agent
from edgepack.channels.channel import ChannelOptions
from edgepack.channels.ssh_session import RemoteOutput, open_session
from edgepack.errors import DeviceError
from edgepack.naming import is_name

_GONE = re.compile(r"^gone (\d{1,20}) (\d{1,20})$", re.MULTILINE)


@dataclass(frozen=True)
class AgentCaptures:
    """What the agent behind an open session has captured."""

    agent: Agent

    @property
    def name(self) -> str:
        """The device, for messages."""
        return self.agent.session.name

    def listing(self) -> DeviceCaptures:
        """Which device it is, and of which models it has captures."""
        answer = self.agent.call("capture", "list")
        try:
            models = tuple(
                CapturedModel(
                    name=str(entry["name"]),
                    first=int(entry["first"]),
                    last=int(entry["last"]),
                    bytes=int(entry["bytes"]),
                )
                for entry in answer["models"]
            )
            device = str(answer["device"] or "none-yet")
        except (LookupError, TypeError, ValueError) as error:
            raise self.agent.not_understood("capture list") from error
        if not is_name(device) or not all(is_name(model.name) for model in models):
            raise self.agent.not_understood("capture list")
        return DeviceCaptures(device=device, models=models)

    @contextlib.contextmanager
    def open(self, model: str, after: int) -> Iterator[AgentStream]:
        """Give what streams the records of ``model`` beyond a number."""
        with self.agent.stream("capture", "read", model, "--after", str(after)) as output:
            yield AgentStream(output, f"{self.name}: cannot read the captures of {model}")


@dataclass
class AgentStream:
    """Records as the agent writes them out."""

    output: RemoteOutput
    failure: str
    gone: list[tuple[int, int]] = field(default_factory=list)
    """Numbers, first and last, that went from the device before they could come; known at the end."""
    _ended: bool = False

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end only, which the agent has confirmed.

        Raises ChannelError where the connection is lost, DeviceError where the agent fails.
        """
        data = b"" if self._ended else self.output.read(size)
        if not data and not self._ended:
            done = self.output.finish()
            if done.status != 0:
                raise DeviceError(f"{self.failure}: {done.last_words()}", check="captures")
            self.gone = [(int(a), int(b)) for a, b in _GONE.findall(done.stderr)]
            self._ended = True
        return data


@contextlib.contextmanager
def open_captures(url: str, options: ChannelOptions) -> Iterator[AgentCaptures]:
    """Connect to the device that ``url`` names.

    Raises ConfigError, ChannelError, and DeviceError as every command of a device does.
    """
    with open_session(url, options) as (session, place):
        yield AgentCaptures(Agent(session, place.root, url))
