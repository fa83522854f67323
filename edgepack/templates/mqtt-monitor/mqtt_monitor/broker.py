"""The MQTT connection: TLS with a client certificate, QoS 1, and a session that the broker keeps.

MQTT 3.1.1, because a persistent session needs no more and every broker has it. paho's thread runs the
network; it hands everything over as events, so that all else happens in one thread.
"""

from __future__ import annotations

import queue
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Union

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from mqtt_monitor.config import BrokerConfig, ConfigError


@dataclass(frozen=True)
class Received:
    """A message that is not acknowledged yet; ``connection`` is the one that it came by."""

    topic: str
    payload: bytes
    duplicate: bool
    mid: int
    qos: int
    connection: int


@dataclass(frozen=True)
class Published:
    """The broker has acknowledged what publish() returned this number for."""

    mid: int


@dataclass(frozen=True)
class Connected:
    """Messages can go out (again)."""


Event = Union[Received, Published, Connected, None]
"""None wakes whoever waits."""


class Broker:
    """One client of one broker; connects, and connects again, by itself."""

    def __init__(self, config: BrokerConfig, topic: str, log: Callable[[str], None]) -> None:
        self._config = config
        self._topic = topic
        self._log = log
        self._connections = 0
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=config.client_id,
            clean_session=False,
            manual_ack=True,
        )
        if config.tls:
            self._client.tls_set_context(_tls(config))
        self._client.reconnect_delay_set(
            config.reconnect_seconds,  # type: ignore[arg-type] # fractions work, too
            config.reconnect_seconds_most,  # type: ignore[arg-type]
        )
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish

    def start(self) -> None:
        """Begin to connect; never waits."""
        config = self._config
        self._client.connect_async(config.host, config.port, config.keepalive_seconds)
        self._client.loop_start()

    def stop(self) -> None:
        """Disconnect; the broker keeps the session, and what it has for us."""
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def is_connected(self) -> bool:
        """Whether it makes sense to publish."""
        return self._client.is_connected()

    def publish(self, topic: str, payload: bytes) -> int:
        """Hand a message over; Published comes with the same number. After a cut paho sends it again."""
        return self._client.publish(topic, payload, qos=1).mid

    def acknowledge(self, message: Received) -> None:
        """The broker may forget it. By another connection it comes again, under a number of its own."""
        if message.connection == self._connections:
            self._client.ack(message.mid, message.qos)

    def _on_connect(self, client: paho.Client, _: Any, flags: Any, reason: Any, __: Any) -> None:
        if reason.is_failure:
            self._log(f"{self._config.host} refuses us: {reason}")
            return
        self._connections += 1
        self._log(f"connected to {self._config.host}")
        client.subscribe(self._topic, qos=1)
        self.events.put(Connected())

    def _on_connect_fail(self, *_: Any) -> None:
        # paho calls this while it handles the exception, and does not pass it.
        self._log(f"cannot connect to {self._config.host}: {sys.exc_info()[1]}")

    def _on_disconnect(self, _: Any, __: Any, flags: Any, reason: Any, ___: Any) -> None:
        if reason.is_failure:
            hint = "" if self._connections else "; does it trust our certificate?"
            self._log(f"{self._config.host} closed the connection: {reason}{hint}")

    def _on_subscribe(self, _: Any, __: Any, mid: int, reasons: Any, ___: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._log(
                f"{self._config.host} does not let us subscribe to {self._topic}: see its ACL"
            )
        else:
            self._log(f"subscribed to {self._topic}")

    def _on_message(self, _: Any, __: Any, message: paho.MQTTMessage) -> None:
        # Without bound here, and bounded by how much the broker sends unacknowledged (mosquitto: 20).
        received = Received(
            message.topic,
            bytes(message.payload),
            message.dup,
            message.mid,
            message.qos,
            self._connections,
        )
        self.events.put(received)

    def _on_publish(self, _: Any, __: Any, mid: int, *___: Any) -> None:
        self.events.put(Published(mid))


def _tls(config: BrokerConfig) -> ssl.SSLContext:
    """Verifies the broker's name and certificate. Raises ConfigError if a file is no good."""
    try:
        context = ssl.create_default_context(cafile=config.ca or None)
    except OSError as error:
        raise ConfigError(f"[broker] ca {config.ca}: {error.strerror or error}") from error
    if config.certificate:
        try:
            context.load_cert_chain(config.certificate, config.key)
        except OSError as error:
            files = f"{config.certificate}, {config.key}"
            raise ConfigError(
                f"[broker] certificate, key {files}: {error.strerror or error}"
            ) from error
    return context
