"""A line of text as the recognition model's input, and its output as text again.

PP-OCR v4 recognition takes a line as float32[1,3,48,320] in -1..1 and answers, for each of 40 columns,
probabilities over a blank and the characters in the model's own metadata (CTC).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

HEIGHT, WIDTH = 48, 320


def draw(text: str) -> np.ndarray:
    """Black text on white, as float32[1,3,48,320]."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    font = ImageFont.load_default(size=32)
    left, top, right, bottom = font.getbbox(text)
    place = ((WIDTH - (right - left)) / 2 - left, (HEIGHT - (bottom - top)) / 2 - top)
    ImageDraw.Draw(image).text(place, text, fill="black", font=font)
    pixels = np.asarray(image, np.float32) / 127.5 - 1
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def characters(model: Path) -> list[str]:
    """The classes of the model's output; class 0 is the blank."""
    import onnx

    metadata = onnx.load(model).metadata_props
    listed = next(entry.value for entry in metadata if entry.key == "character")
    return ["", *listed.splitlines(), " "]


def decode(probabilities: np.ndarray, classes: list[str]) -> str:
    """The best class of each column, repeats collapsed, blanks left out (greedy CTC)."""
    best = probabilities[0].argmax(axis=-1)
    fresh = np.append(True, best[1:] != best[:-1])
    return "".join(classes[index] for index in best[fresh])
