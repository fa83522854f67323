"""Results in words and tables, for people; each from the same fields that ``--json`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgepack.artefacts import Package, PushResult, SignedPackage
from edgepack.cli.output import byte_size, columns

Fields = Mapping[str, Any]


def fields(result: Fields) -> str:
    """One line for each field."""
    return columns((name.replace("_", " "), _plain(value)) for name, value in result.items())


def targets(profiles: Sequence[Fields]) -> str:
    """The table of ``edgepack targets``."""
    head = ("NAME", "CPU", "CORES", "SIMD", "LIBC", "DESCRIPTION")
    rows = (
        (
            profile["name"],
            profile["cpu"],
            profile["cores"],
            f"{profile['vector_bits']} bits",
            f"{profile['libc']} {profile['libc_version']}".rstrip(),
            profile["description"],
        )
        for profile in profiles
    )
    return columns([head, *rows])


def target(profile: Fields) -> str:
    """One profile in full."""
    return columns(
        (key, f"{value:,} ({byte_size(value)})" if key.endswith("_bytes") else _plain(value))
        for key, value in profile.items()
    )


def model(found: Fields) -> str:
    """What ``inspect`` says of a model."""
    flops, parameters = found["flops"], found["parameters"]
    ops = found["ops"]
    lines = [
        ("file", f"{found['file']} ({byte_size(found['bytes'])})"),
        ("format", _format(found)),
        *_tensors(found),
        ("parameters", f"{parameters:,}"),
        (
            "FLOPs",
            "unknown while shapes are not fixed (--input NAME=DIMS)"
            if flops is None
            else f"{flops:,} in convolutions and matrix products",
        ),
        ("operators", f"{sum(ops.values())} of {len(ops)} kinds"),
    ]
    return columns(lines) + "\n" + columns(("", count, name) for name, count in ops.items())


def _format(found: Fields) -> str:
    if found["format"] != "onnx":
        return f"{found['format']}, shown as ONNX, opset {found['opset']}"
    return f"ONNX, opset {found['opset']}, by {found['producer'] or 'nobody it names'}"


def package(found: Fields) -> str:
    """What ``inspect`` says of a package."""
    keys = found["signatures"]
    lines = [
        ("file", found["file"]),
        ("model", f"{found['name']} {found['version']}"),
        ("digest", found["digest"]),
        *_tensors(found),
        ("baseline", _baseline(found["targets"][0]["model"])),
        ("signatures", ", ".join(keys) if keys else "none (edgepack sign)"),
    ]
    return columns(lines) + "".join(f"\n\n{_packaged(target)}" for target in found["targets"])


def _baseline(model: Fields) -> str:
    if "baseline" not in model:
        return "none (edgepack compile --baseline)"
    return f"{model['baseline']['samples']} samples"


def _packaged(target: Fields) -> str:
    rows = (
        (name, byte_size(target["sizes"][name]), digest)
        for name, digest in target["digests"].items()
    )
    return f"target {target['name']} ({target['arch']})\n" + columns(rows)


def compile_result(package: Package, *, report: bool = False) -> dict[str, Any]:
    """The ``--json`` fields of ``compile``; with ``report``, each target's kernels."""
    return {
        "package": str(package.path),
        "digest": package.digest,
        "name": package.name,
        "version": package.version,
        "targets": [
            {
                "name": target.name,
                "code_bytes": target.model["code_bytes"],
                "weights_bytes": target.model["weights_bytes"],
                "arena_bytes": target.model["arena_bytes"],
                "worker_bytes": target.sizes[target.worker],
                "check": target.model["check"],
                **({"kernels": [call.to_dict() for call in target.calls]} if report else {}),
            }
            for target in package.targets
        ],
    }


def compiled(result: Fields) -> str:
    """The table of ``compile``."""
    head = ("TARGET", "CODE", "WORKER", "WEIGHTS", "ARENA", "CHECK")
    sizes = ("code_bytes", "worker_bytes", "weights_bytes", "arena_bytes")
    rows = (
        (target["name"], *(byte_size(target[size]) for size in sizes), _check(target["check"]))
        for target in result["targets"]
    )
    return f"{columns([head, *rows])}\n\nwrote {result['package']}, {result['digest']}"


def _check(check: Fields) -> str:
    if check["skipped"]:
        return f"not run here: {check['skipped']}"
    where = f" under {check['emulator']}" if check["emulator"] else ""
    text = f"max error {check['max_relative_error']:.1e}, {check['vectors']} vectors{where}"
    return text + (_accuracy(check["accuracy"]) if check["accuracy"] else "")


def _accuracy(accuracy: Fields) -> str:
    """Beside the original model: the worst output, and how often the classes agree."""
    worst = max(output["max_error"] for output in accuracy["outputs"])
    agreements = [
        o["top1_agreement"] for o in accuracy["outputs"] if o["top1_agreement"] is not None
    ]
    top1 = f", top-1 {100 * min(agreements):.4g}%" if agreements else ""
    return f"; {worst:.1e} from {accuracy['original']}{top1}, {accuracy['samples']} samples"


def outputs(result: Fields) -> str:
    """What ``run`` says of the outputs."""
    rows = (
        (tensor["name"], _tensor(tensor), f"{_number(tensor['min'])} to {_number(tensor['max'])}")
        for tensor in result["outputs"]
    )
    table = columns([("OUTPUT", "TENSOR", "VALUES"), *rows])
    return table if result["file"] is None else f"{table}\n\nwrote {result['file']}"


def bench(result: Fields) -> str:
    """The table of ``bench``."""
    latency = result["latency_ms"]
    emulated = ", emulated: the times are not the device's" if result["emulated"] else ""
    rows = [
        ("target", f"{result['target']}{emulated}"),
        *([("device", result["device"])] if result["device"] else []),
        (
            "latency",
            f"{latency['median']:.3f} ms median, {latency['p95']:.3f} p95, {latency['min']:.3f} min",
        ),
        ("worker ready", f"{result['ready_ms']:.1f} ms"),
        ("cold start", f"{result['cold_start_ms']:.1f} ms to the first answer"),
        ("peak memory", byte_size(result["peak_rss_bytes"])),
        ("measured", f"{result['iterations']} iterations, threads: {result['threads']}"),
    ]
    return columns(rows)


def push_result(signed: SignedPackage, pushed: PushResult) -> dict[str, Any]:
    """The ``--json`` fields of ``push``."""
    return {
        "model": signed.package.name,
        "version": signed.package.version,
        "channel": pushed.channel,
        "destination": pushed.destination,
        "sent_blobs": pushed.sent_blobs,
        "sent_bytes": pushed.sent_bytes,
        "skipped_blobs": pushed.skipped_blobs,
        "detail": pushed.detail,
    }


def pushed(result: Fields) -> str:
    """What ``push`` says."""
    already = "" if result["detail"].get("changed", True) else " already"
    return (
        f"{result['model']} {result['version']} is{already} at {result['destination']}:"
        f" sent {result['sent_blobs']} blobs, {byte_size(result['sent_bytes'])};"
        f" {result['skipped_blobs']} were there"
    )


def device_setup(result: Fields) -> str:
    """The answer of ``device setup``."""
    kept = result["service"] or "none: without systemd, a restart of the device ends the agent"
    return columns([("service", kept)]) + "\n" + device_status(result["status"])


def device_status(result: Fields) -> str:
    """The answer of ``device status``."""
    lines = [
        ("agent", f"{result['agent']}, {'serving' if result['serving'] else 'not serving'}"),
        ("target", f"{result['target']} ({result['arch']})"),
        ("machine", f"{result['machine']}, up {duration(result['uptime'])}"),
        ("disk", f"{byte_size(result['disk_free'])} free, {byte_size(result['disk_used'])} used"),
        ("keys", ", ".join(map(short, result["keys"])) or "none"),
        ("last install", _last_install(result["last_install"])),
    ]
    if not result["models"]:
        return columns([*lines, ("models", "none")])
    head = ("MODEL", "CURRENT", "PREVIOUS", "FLOOR", "SERVED")
    rows = (
        (
            item["name"],
            _version(item["current"]),
            _version(item["previous"]),
            item["floor"],
            _health(item["served"]),
        )
        for item in result["models"]
    )
    return columns(lines) + "\n\n" + columns([head, *rows])


def duration(seconds: int) -> str:
    """Days and hours, hours and minutes, or minutes."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def _last_install(result: Fields | None) -> str:
    if result is None:
        return "none"
    what = " ".join(filter(None, (result["model"], result["version"]))) or "a package"
    if result["ok"]:
        return f"{what}, succeeded"
    return f"{what}, refused ({result['check']}): {result['reason']}"


def _health(served: Fields | None) -> str:
    if served is None:
        return "-"
    died = f", {served['deaths']} deaths" if served["deaths"] else ""
    drift = "" if served["psi"] is None else f", drift {served['psi']:.2f}"
    what = served["version"] or "unavailable"
    return f"{what}{died}{drift}" + (f": {served['reason']}" if served["reason"] else "")


def signatures(package: Package) -> list[str]:
    """Ids of the keys that signed a package, as its envelope claims; not verified."""
    from edgepack import trust

    if package.envelope is None:
        return []
    envelope = trust.Envelope.from_bytes(package.envelope)
    return [signature.key_id for signature in envelope.signatures]


def short(key_id: str) -> str:
    """A key's id as people compare it: its first 16 digits."""
    return key_id[:16]


def _tensors(found: Fields) -> list[tuple[str, str]]:
    return [
        (kind, f"{tensor['name']}  {_tensor(tensor)}")
        for kind in ("inputs", "outputs")
        for tensor in found[kind]
    ]


def _tensor(tensor: Fields) -> str:
    shape = tensor["shape"]
    dims = "of unknown rank" if shape is None else f"[{','.join(map(str, shape))}]"
    return f"{tensor['dtype']}{dims}"


def _version(entry: Fields | None) -> str:
    return "-" if entry is None else str(entry["version"])


def _number(value: float | bool | None) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return "-" if value in (None, "") else str(value)
