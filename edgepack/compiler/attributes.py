"""Attributes by which passes tell each other about a kernel's function."""

WINDOW = "edgepack.window"
"""The result is a part of a larger tensor: the parameter's number, the part's first element and the
larger tensor's shape."""
ELIDED = "edgepack.elided"
"""A concatenation that its producers have done already: the plan leaves the call out."""
CONSTANTS = "edgepack.constants"
"""Numbers of the parameters that are constants of the model at every call."""
RULE = "edgepack.rule"
"""Names of the schedule rules that wrote the loops."""
FLOPS = "edgepack.flops"
"""Floating-point operations of one call."""
