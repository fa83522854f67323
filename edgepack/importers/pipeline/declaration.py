"""What a pipeline's file declares, and the wiring that it comes to with the models that it names."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgepack.errors import ModelError


@dataclass(frozen=True, kw_only=True, order=True)
class Port:
    """An output or input of one of the models."""

    model: str
    tensor: str

    @property
    def names(self) -> tuple[str, str]:
        """Model and tensor."""
        return self.model, self.tensor

    def __str__(self) -> str:
        return f"{self.model}.{self.tensor}"


@dataclass(frozen=True, kw_only=True)
class Member:
    """One model as declared. ``inputs`` name what feeds an input: ``model.output``, or an input of
    the whole.
    """

    file: str
    format: str | None = None
    signature: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """What feeds what."""

    inputs: Mapping[str, tuple[Port, ...]]
    """Inputs of the whole, and the models' inputs that each feeds."""
    connections: Mapping[Port, Port]
    """Models' inputs, and the output that feeds each."""
    outputs: Mapping[str, Port]
    """Outputs of the whole."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """The whole file."""

    path: Path
    models: Mapping[str, Member]
    outputs: Mapping[str, str]

    def order(self) -> list[str]:
        """The models' names, each behind those that feed it. Raises ModelError for a circle."""
        feeding = {
            name: {self._source(name, key).model for key in member.inputs if self._fed(name, key)}
            for name, member in self.models.items()
        }
        order: list[str] = []
        while len(order) < len(feeding):
            free = [n for n, needs in feeding.items() if n not in order and needs <= set(order)]
            if not free:
                circle = ", ".join(name for name in feeding if name not in order)
                raise self.wrong(f"models feed one another in a circle: {circle}")
            order += free
        return order

    def source_of(self, model: str, tensor: str) -> Port | str:
        """The output that feeds an input, or the name of the input of the whole that does."""
        return (
            self._source(model, tensor) if self._fed(model, tensor) else self._open(model, tensor)
        )

    def wired(
        self, inputs: Mapping[str, Collection[str]], outputs: Mapping[str, Collection[str]]
    ) -> Wiring:
        """The wiring of models with these inputs and outputs. Raises ModelError."""
        fed: dict[str, list[Port]] = {}
        connections: dict[Port, Port] = {}
        for name, member in self.models.items():
            for key in member.inputs:
                self._known(key, inputs[name], f"model {name!r} has no input")
            for tensor in inputs[name]:
                port, source = Port(model=name, tensor=tensor), self.source_of(name, tensor)
                if isinstance(source, Port):
                    self._known(
                        source.tensor, outputs[source.model], f"{source.model!r} has no output"
                    )
                    connections[port] = source
                else:
                    fed.setdefault(source, []).append(port)
        self._refuse_shared(fed)
        return Wiring(
            inputs={name: tuple(ports) for name, ports in fed.items()},
            connections=connections,
            outputs=self._outputs(outputs, set(connections.values()), fed),
        )

    def wrong(self, reason: str, hint: str = "") -> ModelError:
        """The error for the file; to be raised."""
        return wrong_pipeline(self.path, reason, hint)

    def _fed(self, model: str, tensor: str) -> bool:
        """Whether another model feeds the input."""
        return "." in self.models[model].inputs.get(tensor, "")

    def _source(self, model: str, tensor: str) -> Port:
        given = self.models[model].inputs[tensor]
        feeder, _, output = given.partition(".")
        self._known(
            feeder, self.models, f"input {tensor!r} of {model!r} is fed by {given!r}; no model"
        )
        return Port(model=feeder, tensor=output)

    def _open(self, model: str, tensor: str) -> str:
        return self.models[model].inputs.get(tensor, tensor)

    def _known(self, name: str, names: Collection[str], what: str) -> None:
        if name in names:
            return
        close = difflib.get_close_matches(name, names, n=1)
        guess = f"Did you mean {close[0]!r}? " if close else ""
        raise self.wrong(f"{what} {name!r}", f"{guess}There are: {', '.join(names)}")

    def _refuse_shared(self, fed: Mapping[str, list[Port]]) -> None:
        """Two models' inputs are one only where the file says so."""
        for name, ports in fed.items():
            silent = [port for port in ports if port.tensor not in self.models[port.model].inputs]
            if silent and len(ports) > 1:
                raise self.wrong(
                    f"{' and '.join(map(str, ports))} would both be the input {name!r}",
                    f'Say so, inputs = {{ {silent[0].tensor} = "{name}" }}, or give one another name',
                )

    def _outputs(
        self,
        outputs: Mapping[str, Collection[str]],
        read: Collection[Port],
        taken: Collection[str],
    ) -> dict[str, Port]:
        """Those that the file names; else every output that no model reads, under its own name."""
        found: dict[str, Port] = {}
        for name, given in self.outputs.items():
            model, _, tensor = given.partition(".")
            self._known(model, self.models, f"output {name!r} is {given!r}; no model")
            self._known(
                tensor, outputs[model], f"output {name!r} is {given!r}; {model!r} has no output"
            )
            found[name] = Port(model=model, tensor=tensor)
        if not found:
            for port in (Port(model=m, tensor=t) for m in self.models for t in outputs[m]):
                if port in read:
                    continue
                if port.tensor in found:
                    raise self.wrong(
                        f"{found[port.tensor]} and {port} would both be the output {port.tensor!r}",
                        "Name the outputs in a table [outputs]",
                    )
                found[port.tensor] = port
        for name in found:
            if name in taken:
                raise self.wrong(
                    f"{name!r} is an input and an output", "Name the outputs in a table [outputs]"
                )
        return found


def wrong_pipeline(path: Path, reason: str, hint: str = "") -> ModelError:
    """The error for a pipeline's file; to be raised."""
    return ModelError(f"pipeline {path}: {reason}", hint)
