"""Frameworks that an importer reads models with: optional extras, imported here and kept quiet."""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from types import ModuleType

from edgepack.errors import ConfigError


def require(module: str, extra: str, what: str) -> ModuleType:
    """Import a module of an optional extra; ``what`` it reads completes "reading … needs …".

    Raises ConfigError where it is not installed, or is there and cannot be imported.
    """
    try:
        with quietly():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"reading {what} needs {error.name or module}, which is not installed",
            f"pip install 'edgepack[{extra}]'",
        ) from error
    except (ImportError, OSError) as error:  # OSError: of a native library
        raise ConfigError(
            f"reading {what} needs {module}, which cannot be imported: {' '.join(str(error).split())}",
            f"pip install --force-reinstall 'edgepack[{extra}]'",
        ) from error


@contextmanager
def quietly() -> Iterator[None]:
    """Drop what a framework prints, logs and warns of, native code included."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nowhere)
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            stream.flush()
            stack.callback(_restore, number, os.dup(number))
            os.dup2(nowhere, number)
        stack.enter_context(redirect_stdout(_Nowhere()))
        stack.enter_context(redirect_stderr(_Nowhere()))
        yield


class _Nowhere(io.TextIOBase):
    """Never closed: a framework's log handlers keep the stream that they find when it is imported."""

    def write(self, text: str) -> int:
        return len(text)


def _restore(number: int, copy: int) -> None:
    os.dup2(copy, number)
    os.close(copy)
