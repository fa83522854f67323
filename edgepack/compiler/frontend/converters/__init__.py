"""Converters by domain and operator; a family of operators is a module with a dict CONVERTERS.

The keys of a module's dict are operators of its DOMAIN. What is not here goes to TVM's own
converters (tvm_importer.py).
"""

from __future__ import annotations

from types import ModuleType

from edgepack.compiler.frontend.converters import (
    affine_grid,
    arithmetic,
    attention,
    batch_normalization,
    carried,
    conversion,
    convolution,
    cumulative,
    determinant,
    einsum,
    feature_columns,
    feature_scaling,
    filling,
    folding,
    functions,
    gathering,
    gating,
    label_encoding,
    linear_attention,
    linear_models,
    losses,
    max_regions,
    ngrams,
    non_zero,
    normalization,
    ordering,
    padding,
    pooling,
    products,
    quantized,
    quantized_products,
    recurrent,
    reduction,
    regions,
    resize,
    sampling,
    scattering,
    selection,
    shapes,
    signal,
    slicing,
    softmax,
    support_vectors,
    suppression,
    top_k,
    trees,
    unique,
    views,
)
from edgepack.compiler.frontend.node import Converter

_FAMILIES: tuple[ModuleType, ...] = (
    affine_grid,
    arithmetic,
    attention,
    batch_normalization,
    carried,
    conversion,
    convolution,
    cumulative,
    determinant,
    einsum,
    feature_columns,
    feature_scaling,
    filling,
    folding,
    functions,
    gathering,
    gating,
    label_encoding,
    linear_attention,
    linear_models,
    losses,
    max_regions,
    ngrams,
    non_zero,
    normalization,
    ordering,
    padding,
    pooling,
    products,
    quantized,
    quantized_products,
    recurrent,
    reduction,
    regions,
    resize,
    sampling,
    scattering,
    selection,
    shapes,
    signal,
    slicing,
    softmax,
    support_vectors,
    suppression,
    top_k,
    trees,
    unique,
    views,
)

CONVERTERS: dict[tuple[str, str], Converter] = {
    (family.DOMAIN, operator): converter
    for family in _FAMILIES
    for operator, converter in family.CONVERTERS.items()
}
"""Converters by domain (empty for ONNX's own) and operator."""
