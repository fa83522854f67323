"""``python3 -m mqtt_monitor CONFIG``: exit code 0 after SIGTERM or SIGINT, 2 for the configuration."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from edgepack_client import Client

from mqtt_monitor.broker import Broker
from mqtt_monitor.config import ConfigError, load_config
from mqtt_monitor.monitor import Monitor
from mqtt_monitor.store import Store, StoreError


def main(arguments: list[str]) -> int:
    """Run until a signal."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        _log("usage: python3 -m mqtt_monitor CONFIG.toml|CONFIG.json")
        return 2
    try:
        config = load_config(Path(arguments[0]))
        broker = Broker(config.broker, config.topics.windows, _log)
        limits = {"rows_most": config.store.rows_most, "bytes_most": config.store.bytes_most}
        store = Store(Path(config.store.path), **limits)
    except (ConfigError, StoreError) as error:
        _log(str(error))
        return 2
    # numpy would cost memory and give nothing here.
    agent = Client(config.model.socket, config.model.timeout_seconds, arrays=False)
    monitor = Monitor(config, broker, agent, store, _log)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: monitor.stop())
    monitor.run()
    agent.close()
    store.close()
    return 0


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
