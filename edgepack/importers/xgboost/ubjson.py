"""Reads UBJSON, the binary form of JSON (https://ubjson.org), as far as XGBoost writes it.

A value is a letter for its type and its bytes, big-endian. Nothing is read beyond the end: what a
file cut short or changed leads to is a ValueError.
"""

from __future__ import annotations

from typing import Any

_NUMBERS = {"i": ">i1", "U": ">u1", "I": ">i2", "l": ">i4", "L": ">i8", "d": ">f4", "D": ">f8"}
_WORDS = {"T": True, "F": False, "Z": None}
_DEEPEST = 64


def loads(content: bytes) -> Any:
    """The value that the bytes are, dictionaries and lists of numbers and strings. Raises ValueError."""
    reader = _Reader(content)
    value = reader.value(reader.letter(), 0)
    if reader.place != len(content):
        raise ValueError(f"there is more behind byte {reader.place}")
    return value


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.place = 0

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self._content) - self.place:
            raise ValueError(f"it is cut short at byte {self.place}")
        self.place += size
        return self._content[self.place - size : self.place]

    def letter(self) -> str:
        return self.take(1).decode("latin-1")

    def value(self, kind: str, depth: int) -> Any:
        if kind in _NUMBERS:
            return self._numbers(kind, 1)[0]
        if kind in _WORDS:
            return _WORDS[kind]
        if kind == "S":
            return self._string()
        if depth < _DEEPEST and kind == "{":
            return self._object(depth)
        if depth < _DEEPEST and kind == "[":
            return self._array(depth)
        raise ValueError(f"byte {self.place - 1} is no type of a value")

    def _numbers(self, kind: str, count: int) -> list[Any]:
        import numpy as np

        dtype = np.dtype(_NUMBERS[kind])
        if count < 0:
            raise ValueError(f"a count before byte {self.place} is negative")
        numbers: list[Any] = np.frombuffer(self.take(count * dtype.itemsize), dtype).tolist()
        return numbers

    def _count(self) -> int:
        kind = self.letter()
        if kind not in "iUIlL":
            raise ValueError(f"byte {self.place - 1} is not the type of a count")
        return int(self._numbers(kind, 1)[0])

    def _string(self) -> str:
        return self.take(self._count()).decode()

    def _object(self, depth: int) -> dict[str, Any]:
        found = {}
        while self._content[self.place : self.place + 1] != b"}":
            name = self._string()
            found[name] = self.value(self.letter(), depth + 1)
        self.place += 1
        return found

    def _array(self, depth: int) -> list[Any]:
        """Of one type and counted, counted, or up to a bracket."""
        first = self.letter()
        if first == "$":
            kind = self.letter()
            if self.letter() != "#" or kind not in _NUMBERS:
                raise ValueError(f"byte {self.place - 1} is not the type of an array")
            return self._numbers(kind, self._count())
        if first == "#":
            return [self.value(self.letter(), depth + 1) for _ in range(self._count())]
        found = []
        while first != "]":
            found.append(self.value(first, depth + 1))
            first = self.letter()
        return found
