"""What the commands about captures say to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgepack.cli.output import byte_size, columns

Fields = Mapping[str, Any]


def changed(result: Fields, given: Fields) -> str:
    """The answer of ``device capture set`` and ``off``."""
    when = "" if result["serving"] else ", once the agent serves"
    return f"{result['model']}: {rules(given)}{when}"


def rules(given: Fields | None) -> str:
    """Rules in words; none are those of a model that nobody gave any."""
    given = given or {}
    if given.get("off"):
        return "nothing is captured"
    words = []
    if given.get("always"):
        words.append("every request")
    if "every" in given:
        words.append(f"one of {given['every']}")
    if "rate" in given:
        words.append(f"{100 * given['rate']:.4g} %")
    for name in ("below", "above"):
        if name in given:
            words.append(f"{given[name]['output']} {name} {given[name]['value']:.6g}")
    if given.get("nan"):
        words.append("NaN")
    limits = []
    if "max_bytes" in given:
        limits.append(f"at most {byte_size(given['max_bytes'])}")
    if "max_age_s" in given:
        limits.append(f"for {given['max_age_s']} s")
    captured = ", ".join(words) or "on request"
    return "; ".join([f"captured: {captured}", *limits])


def status(models: Sequence[Fields]) -> str:
    """The answer of ``device capture status``."""
    if not models:
        return "no models"
    head = ("MODEL", "CAPTURES", "SIZE", "LOST", "RULES")
    rows = (
        (
            model["model"],
            str(model["count"]),
            byte_size(model["bytes"]),
            _lost(model),
            model["trouble"] or rules(model["rules"]),
        )
        for model in models
    )
    return columns([head, *rows])


def _lost(model: Fields) -> str:
    lost = model["dropped"] + model["failed"]
    if not lost or not model["last_failure"]:
        return str(lost)
    return f"{lost} ({model['last_failure']})"
