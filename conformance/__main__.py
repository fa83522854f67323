"""``make conformance``: passes and totals for each operator, and docs/operators.md.

A part of it, with the reasons of what fails:

    python -m conformance --match resize
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from conformance import pool, report
from conformance.cases import all_cases


def main() -> None:
    """Run what the command line asks for and print the table; write the document where asked to."""
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--match", default="", help="a regular expression for names of cases")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--write", action="store_true", help="write docs/operators.md")
    parser.add_argument("--json", type=Path, help="write every case's result to this file")
    options = parser.parse_args()
    cases = all_cases()
    chosen = [
        name
        for name, case in cases.items()
        if not case.reason and re.search(options.match, f"{name} {case.operator}")
    ]

    def say(name: str, result: str) -> None:
        if result:
            print(f"{name}: {result}", file=sys.stderr, flush=True)

    results = pool.run(chosen, options.jobs, say)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    tallies = report.tally(cases, results)
    print(report.summary(tallies))
    if options.write:
        report.write(cases, results)


if __name__ == "__main__":
    main()
