from __future__ import annotations

from typing import Any

import pytest

from edgepack.errors import ModelError
from tests import operators
from tests.operators import node, whole

POOL: dict[str, Any] = {
    "pool_int64s": [2, 3, 5, 4, 5, 6, 7, 8, 6, 7, 1, 2, 3],
    "ngram_counts": [0, 4, 10],
    "ngram_indexes": [0, 2, 1, 4, 5, 6, 3, 8],
}


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize("skips", [0, 3])
def test_counts_weights_and_gaps(skips: int, mode: str) -> None:
    weights = [0.5, 1.0, 2.0, 3.0, 0.25, 4.0, 5.0, 6.0]
    nodes = [
        node(
            "TfIdfVectorizer",
            data,
            f"{data}{shortest}{longest}{len(given)}",
            mode=mode,
            min_gram_length=shortest,
            max_gram_length=longest,
            max_skip_count=skips,
            **POOL,
            **given,
        )
        for data in ("batch", "line")
        for shortest, longest in ((1, 1), (1, 2), (2, 2), (1, 3))
        for given in ({}, {"weights": weights})
    ]
    draws = {"batch": whole(1, 9, 3, 12), "line": whole(1, 9, 12, dtype="int32")}
    operators.agree(nodes, draws, oracle=operators.onnxruntime)


def test_a_pool_of_words_is_refused() -> None:
    vectorizer = node(
        "TfIdfVectorizer",
        "x",
        "y",
        mode="TF",
        min_gram_length=1,
        max_gram_length=1,
        max_skip_count=0,
        ngram_counts=[0],
        ngram_indexes=[0, 1],
        pool_strings=["one", "two"],
    )
    with pytest.raises(ModelError, match="text"):
        operators.agree(vectorizer, {"x": whole(1, 9, 3, 12)})
