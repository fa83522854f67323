"""A real MQTT broker that knows clients by their certificates, and what it takes to talk to it."""

from __future__ import annotations

import json
import os
import queue
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.native.fake_device import wait_until

_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))

_ACL = """user control
topic readwrite plant/#
pattern read plant/%u/windows/#
pattern write plant/%u/out/#
"""

_CONFIG = """listener {port} 127.0.0.1
cafile {place}/ca.crt
certfile {place}/server.crt
keyfile {place}/server.key
require_certificate true
use_identity_as_username true
acl_file {place}/acl
allow_anonymous false
persistence false
log_type all
"""


class Authority:
    """A certificate authority; ``issue("gw")`` leaves gw.crt and gw.key in ``place``."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(exist_ok=True)
        self._openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=plant"
            " -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.crt"
        )

    def issue(self, name: str, *, usage: str, extra: str = "") -> None:
        (self.place / f"{name}.ext").write_text(f"extendedKeyUsage={usage}\n{extra}")
        self._openssl(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
            f" -keyout {name}.key -out {name}.csr -subj /CN={name}"
        )
        self._openssl(
            "x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 2"
            f" -in {name}.csr -extfile {name}.ext -out {name}.crt"
        )

    def _openssl(self, arguments: str) -> None:
        command = ["openssl", *arguments.split()]
        subprocess.run(command, cwd=self.place, check=True, capture_output=True)


@dataclass
class Mosquitto:
    """A broker on a port of its own; killed and started again, it is a new one that knows nothing."""

    place: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def create(cls, place: Path) -> Mosquitto:
        authority = Authority(place)
        authority.issue("server", usage="serverAuth", extra="subjectAltName=IP:127.0.0.1\n")
        for client in ("control", "gw-1"):
            authority.issue(client, usage="clientAuth")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        (place / "acl").write_text(_ACL)
        config = _CONFIG.format(place=place, port=port)
        if os.getuid() == 0:
            config += "user root\n"
        (place / "mosquitto.conf").write_text(config)
        return cls(place, port)

    def start(self) -> None:
        command = [shutil.which("mosquitto", path=_PATH) or "mosquitto", "-c", "mosquitto.conf"]
        with (self.place / "broker.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.place, stdout=log, stderr=log)
        wait_until(self._answers)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        return (self.place / "broker.log").read_text(errors="replace")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except ConnectionRefusedError:
            return False
        return True

    def tls(self, name: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.place / "ca.crt")
        context.load_cert_chain(self.place / f"{name}.crt", self.place / f"{name}.key")
        return context


class Control:
    """The plant's side: sends windows, and keeps everything that comes from the device."""

    def __init__(self, broker: Mosquitto) -> None:
        self._broker = broker
        self.received: list[tuple[str, dict[str, Any]]] = []
        self._subscribed: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="control")
        self._client.tls_set_context(broker.tls("control"))
        self._client.reconnect_delay_set(0.05, 0.1)  # type: ignore[arg-type]
        self._client.on_connect = lambda client, *_: client.subscribe("plant/+/out/#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.put(True)
        self._client.on_message = self._on_message

    def start(self) -> None:
        self._client.connect("127.0.0.1", self._broker.port)
        self._client.loop_start()
        self.wait_subscribed()

    def wait_subscribed(self) -> None:
        """Each connection subscribes once."""
        assert self._subscribed.get(timeout=20)

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def send(self, payload: bytes | dict[str, Any], topic: str = "plant/gw-1/windows/a") -> None:
        """Until the broker has it."""
        content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self._client.publish(topic, content, qos=1).wait_for_publish(20)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [body for topic, body in self.received if topic.endswith(f"/out/{kind}")]

    def wait_for(self, condition: Callable[[Control], bool]) -> None:
        wait_until(lambda: condition(self), seconds=30)

    def _on_message(self, _: Any, __: Any, message: paho.MQTTMessage) -> None:
        self.received.append((message.topic, json.loads(message.payload)))
