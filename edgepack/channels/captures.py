"""A device's captures over SSH: its agent lists them, and streams the records of a model.

``edgepack-agent captures NAME --after N`` writes whole records and nothing else; that it exits with 0
tells the end of them from a cut.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgepack.artefacts import CapturedModel, DeviceCaptures
from edgepack.channels.agent import Agent
from edgepack.channels.channel import ChannelOptions
from edgepack.channels.ssh_session import open_session
from edgepack.errors import DeviceError
from edgepack.naming import is_name


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
        answer = self.agent.call("captures")
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
            device = str(answer["device"])
        except (LookupError, TypeError, ValueError) as error:
            raise self.agent.not_understood("captures") from error
        if not is_name(device) or not all(is_name(model.name) for model in models):
            raise self.agent.not_understood("captures")
        return DeviceCaptures(device=device, models=models)

    @contextlib.contextmanager
    def open(self, model: str, after: int) -> Iterator[Callable[[int], bytes]]:
        """Give what reads the records of ``model`` beyond a number.

        Reading raises ChannelError where the connection is lost, and DeviceError where the agent fails.
        """
        with self.agent.stream("captures", model, "--after", str(after)) as output:

            def read(size: int) -> bytes:
                data = output.read(size)
                if not data:
                    done = output.finish()
                    if done.status != 0:
                        words = f"cannot read the captures of {model}: {done.last_words()}"
                        raise DeviceError(f"{self.name}: {words}", check="captures")
                return data

            yield read


@contextlib.contextmanager
def open_captures(url: str, options: ChannelOptions) -> Iterator[AgentCaptures]:
    """Connect to the device that ``url`` names.

    Raises ConfigError, ChannelError, and DeviceError as every command of a device does.
    """
    with open_session(url, options) as (session, place):
        yield AgentCaptures(Agent(session, place.root, url))
