"""The process that conformance.pool starts: names of cases on stdin, results on stdout."""

from __future__ import annotations

import json
import os
import sys
import warnings

from conformance.cases import all_cases
from conformance.trial import attempt


def main() -> None:
    """Answer until stdin ends; whatever else is printed goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    cases = all_cases()
    for line in sys.stdin:
        answers.write(json.dumps(attempt(cases[line.strip()])) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
