"""``python -m tests.load``: see --help."""

from __future__ import annotations

import argparse
import sys

from tests.load.campaign import run


def main() -> int:
    """Exit code 1 where something was not as it must be."""
    parser = argparse.ArgumentParser(
        prog="make load", description="An agent under load, disturbed in every way."
    )
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    report = run(chosen.seconds, seed=chosen.seed)
    print(report.table())
    for line in report.trouble():
        print(f"NOT RIGHT: {line}")
    return 1 if report.trouble() else 0


if __name__ == "__main__":
    sys.exit(main())
