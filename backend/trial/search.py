"""Finds inputs that a model runs on: lengths of its dynamic dimensions and values of its integers and strings.

Shapes of config.pbtxt and its `model_warmup` come first, then lengths that models of such inputs usually take.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from backend.errors import EngineError
from backend.tensors import Array, TensorSpec
from backend.trial.messages import Fill, Sample, SyntheticInputs
from backend.trial.synthetic_inputs import arrays

Run = Callable[[Mapping[str, Array]], list[Array]]
"""Runs the model once; outputs in the model's order. Raises EngineError."""

LENGTHS = (64, 224, 16, 128, 32, 256, 640, 512, 1, 8, 4, 2, 3, 1000, 4096, 16000)
"""Tried in this order, after those that an input's kind suggests."""
_IMAGE, _TOKENS, _AUDIO = 224, 32, 16000
_SOUNDS = ("audio", "wav", "speech", "signal", "pcm", "sound")
_INTEGERS = ((-1000, 1000), (0, 1000), (0, 100), (0, 10), (0, 2))
"""Ranges that an integer input is tried with, the widest that runs is taken: ids look up tables of unknown size."""
_WORDS = (("a", "b", "c d", "e1"), ("0", "1", "2"), ("",))
_BATCH_NAMES = frozenset({"", "n", "b", "bs"})


class ExpiredError(Exception):
    """Time for the search is over."""


@dataclass
class Search:
    """Search for inputs of one model. dims: see `Question`. check_time: raises ExpiredError where no time is left.

    error: the reason of the first failed attempt.
    """

    run: Run
    specs: Sequence[TensorSpec]
    dims: Mapping[str, tuple[int, ...]]
    samples: Sequence[Sample]
    check_time: Callable[[], None]
    error: str = ""
    _tried: set[str] = field(default_factory=set)

    def find(self, *, batch: bool) -> SyntheticInputs | None:
        """Inputs that the model runs on, None where none was found. batch: with one row in the first dimension."""
        required = [spec for spec in self.specs if not spec.optional]
        first = next((m for m in self._proposals(required, batch) if self._runs(m)), None)
        return None if first is None else self._widened(first, required)

    def other_lengths(self, synthetic: SyntheticInputs, *, batch: bool) -> SyntheticInputs | None:
        """Inputs with other lengths in dynamic dimensions, None where there are none or nothing else runs."""
        required = [spec for spec in self.specs if not spec.optional]
        fills = synthetic.values()
        for length in (*LENGTHS[2:7], *LENGTHS[:2]):
            shapes = self._shapes(required, length, batch)
            other = {name: msgspec.structs.replace(synthetic[name], dims=dims) for name, dims in shapes.items()}
            if [f.dims for f in other.values()] != [f.dims for f in fills] and self._runs(other):
                return other
        return None

    def _proposals(self, specs: Sequence[TensorSpec], batch: bool) -> Iterator[SyntheticInputs]:
        for sample in self.samples:
            yield from self._of_sample(sample, specs, batch)
        for length in dict.fromkeys((*_suggested(specs), *LENGTHS)):
            shapes = self._shapes(specs, length, batch)
            for low, high in ((0, 2), (1, 2), (0, 1), (length, length + 1)):
                for words in _WORDS if any(spec.datatype.numpy.hasobject for spec in specs) else _WORDS[:1]:
                    yield {name: Fill(dims, low, high, words) for name, dims in shapes.items()}

    def _of_sample(self, sample: Sample, specs: Sequence[TensorSpec], batch: bool) -> Iterator[SyntheticInputs]:
        """Propose random values in the sample's shapes, then its own values."""
        if not all(spec.name in sample.dims for spec in specs):
            return
        shapes = {spec.name: sample.dims[spec.name] for spec in specs}
        if batch:
            shapes = {name: (1, *dims) for name, dims in shapes.items()}
        # A sample of a model that batches leaves the first dimension out.
        shapes = {
            s.name: shapes[s.name] if len(shapes[s.name]) == len(s.shape) else (1, *shapes[s.name]) for s in specs
        }
        yield {name: Fill(dims) for name, dims in shapes.items()}
        yield {
            name: Fill(dims, data=sample.data.get(name, ""), zeros=name in sample.zeros)
            for name, dims in shapes.items()
        }

    def _shapes(self, specs: Sequence[TensorSpec], length: int, batch: bool) -> dict[str, tuple[int, ...]]:
        return {spec.name: tuple(self._lengths(spec, length, batch)) for spec in specs}

    def _lengths(self, spec: TensorSpec, length: int, batch: bool) -> Iterator[int]:
        stated = self.dims.get(spec.name, ())
        if len(stated) == len(spec.shape) - 1:
            stated = (-1, *stated)
        for i, size in enumerate(spec.shape):
            name = spec.dim_names[i] if i < len(spec.dim_names) else ""
            if i == 0 and batch:
                yield 1
            elif size >= 0:
                yield size
            elif i < len(stated) and stated[i] >= 0:
                yield stated[i]
            elif name.isdecimal():
                yield int(name)
            elif i == 0 and ("batch" in name.lower() or name.lower() in _BATCH_NAMES):
                yield 1
            else:
                yield length * len(re.findall(r"\w+(?: ?\+ ?)?", name) or [""]) if "+" in name else length

    def _widened(self, synthetic: SyntheticInputs, specs: Sequence[TensorSpec]) -> SyntheticInputs:
        """Widen each integer input to the largest range that runs, so that rows differ as far as they can."""
        for spec in specs:
            fill = synthetic[spec.name]
            if spec.datatype.numpy.kind not in "iu" or fill.data:
                continue
            limits = np.iinfo(spec.datatype.numpy.name)
            for low, high in _INTEGERS:
                if low < limits.min or high > limits.max:
                    continue
                wider = {**synthetic, spec.name: msgspec.structs.replace(fill, low=low, high=high)}
                if (low, high) == (fill.low, fill.high) or all(self._runs(wider, seed) for seed in (1, 2)):
                    synthetic = wider
                    break
        return synthetic

    def _runs(self, synthetic: SyntheticInputs, seed: int = 0) -> bool:
        self.check_time()
        try:
            self.run(arrays(self.specs, synthetic, seed=seed))
        except (EngineError, OSError, ValueError, MemoryError) as error:
            self.error = self.error or str(error)
            return False
        return True


def _suggested(specs: Iterable[TensorSpec]) -> Iterator[int]:
    """Lengths for images, token ids and sound, by shape and type."""
    for spec in specs:
        dynamic = spec.shape[1:].count(-1)
        if len(spec.shape) == 4 and dynamic and {spec.shape[1], spec.shape[3]} & {1, 3, 4}:
            yield _IMAGE
        elif len(spec.shape) == 2 and dynamic:
            if spec.datatype.numpy.kind in "iu":
                yield _TOKENS
            elif any(sound in spec.name.lower() for sound in _SOUNDS):
                yield _AUDIO
