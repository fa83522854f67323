"""``python -m edgepack``: the same as the ``edgepack`` command."""

from __future__ import annotations

import sys

from edgepack.cli import main

if __name__ == "__main__":
    sys.exit(main())
