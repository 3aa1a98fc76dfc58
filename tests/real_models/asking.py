"""Inputs for the real models: from a seed, of a shape that does not depend on it, and of values as the model expects.

Requests of equal shapes are what a batch can be made of; values differ, so that a mixed-up answer shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]
Ask = Callable[[int], Arrays]


def floats(shapes: dict[str, Sequence[int]], dtype: npt.DTypeLike = np.float32, spread: float = 1.0) -> Ask:
    """Normal values, each request's some other number of times as large, as sounds and counts are."""

    def ask(seed: int) -> Arrays:
        random = np.random.default_rng(seed)
        scale = spread * 4.0 ** (seed % 3 - 1)
        return {name: (scale * random.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()}

    return ask


def picture(name: str, height: int, width: int) -> Ask:
    """One picture of values between 0 and 1: large patches, which convolutions see as edges."""

    def ask(seed: int) -> Arrays:
        random = np.random.default_rng(seed)
        patches = random.random((3, -(-height // 8), -(-width // 8)), np.float32)
        return {name: patches.repeat(8, 1).repeat(8, 2)[None, :, :height, :width]}

    return ask


def page(height: int, width: int) -> Ask:
    """White paper with lines of dark strokes, as a reader's camera sees them: values between −1 and 1."""

    def ask(seed: int) -> Arrays:
        random = np.random.default_rng(seed)
        paper = np.ones((height, width), np.float32)
        for top in range(16, height - 32, 32):
            strokes = random.random(width // 4) < 0.6
            bars = random.random(width // 4) < 0.5
            paper[top : top + 16, 16 : width - 16][
                :, strokes.repeat(4)[16 : width - 16] & (np.arange(width - 32) % 4 < 2)
            ] = -1
            paper[top + 6 : top + 9, 16 : width - 16][:, bars.repeat(4)[16 : width - 16]] = -1
        return {"x": np.broadcast_to(paper, (1, 3, height, width)).copy()}

    return ask


def text(words: int, vocabulary: int, names: Sequence[str]) -> Ask:
    """Token ids with the masks that transformers take: a third of the last ones is padding."""

    def ask(seed: int) -> Arrays:
        random = np.random.default_rng(seed)
        real = np.arange(words)[None] < words - seed % (words // 3)
        ids = np.where(real, random.integers(1, vocabulary, (1, words)), 0)
        zeros = np.zeros_like(ids)
        tensors = {"input_ids": ids, "attention_mask": real.astype(np.int64), "token_type_ids": zeros}
        return {name: tensors[name] for name in names}

    return ask


def characters(seed: int) -> Arrays:
    """A name in letters and a mask of those that are real."""
    ids = np.random.default_rng(seed).integers(4, 30, (1, 12))
    return {"src": ids, "src_mask": np.arange(12)[None] < 12 - seed % 4}


def next_character(seed: int) -> Arrays:
    """What follows four letters, with the memory and the state of an encoder."""
    random = np.random.default_rng(seed)
    return {
        "prefix": random.integers(4, 30, (1, 4)),
        "memory": np.tanh(random.standard_normal((1, 12, 256))).astype(np.float32),
        "src_mask": np.arange(12)[None] < 12 - seed % 4,
        "hidden": np.tanh(random.standard_normal((1, 2, 256))).astype(np.float32),
    }


def file_content(seed: int) -> Arrays:
    """The bytes of a file's beginning and end; 256 is padding."""
    content = np.random.default_rng(seed).integers(32, 127, (1, 2048)).astype(np.int32)
    content[0, 1024 - seed : 1024] = 256
    return {"bytes": content}


def listening(seed: int) -> Arrays:
    """32 ms of sound with the state after what came before, and the sample rate: one value without dimensions."""
    random = np.random.default_rng(seed)
    return {
        "input": (0.1 * (1 + seed) * random.standard_normal((1, 576))).astype(np.float32),
        "state": np.tanh(random.standard_normal((2, 1, 128))).astype(np.float32),
        "sr": np.array(16_000, np.int64),
    }
