"""Target profiles: what edgepack knows about the machine that a model is compiled for.

A profile is one TOML file with exactly the keys of Target, without ``name``: the file's stem is the
name. Those in this folder come with edgepack; a user's own is given by its path. ``host`` is not a
file: it is read off this machine.
"""

from __future__ import annotations

from edgepack.targets.host import detect_host
from edgepack.targets.loader import load_target, target_names
from edgepack.targets.profile import Target

__all__ = ["Target", "detect_host", "load_target", "target_names"]
