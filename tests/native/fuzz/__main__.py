"""``python -m tests.native.fuzz``: see --help."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.native.fuzzing import TARGETS, FuzzFailure, make


def main() -> int:
    """Exit code 1 where something failed; the inputs stay where the message says."""
    parser = argparse.ArgumentParser(
        prog="make fuzz", description="Changed inputs for the agent's parsers."
    )
    parser.add_argument("--target", choices=TARGETS, action="append", help="all, unless given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0, help="the first iteration's number")
    parser.add_argument("--iterations", type=int, default=1_000_000, help="of each target")
    chosen = parser.parse_args()
    fuzzer = make(Path(tempfile.mkdtemp(prefix="edgepack-fuzzing-")))
    print(f"seed {chosen.seed}, corpus {fuzzer.corpus}", flush=True)
    print(f"{'target':<12}{'inputs':>10}{'taken':>10}{'seconds':>9}{'a second':>10}")
    total = 0
    for target in chosen.target or TARGETS:
        try:
            it = fuzzer.run(
                target, seed=chosen.seed, start=chosen.start, iterations=chosen.iterations
            )
        except FuzzFailure as failure:
            print(failure, file=sys.stderr)
            return 1
        rate = it.iterations / it.seconds
        print(
            f"{target:<12}{it.iterations:>10}{it.taken:>10}{it.seconds:>9.1f}{rate:>10.0f}",
            flush=True,
        )
        total += it.iterations
    print(f"{total} inputs: no crash, no hang, nothing outside of the device")
    return 0


if __name__ == "__main__":
    sys.exit(main())
