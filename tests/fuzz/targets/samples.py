"""A samples file: read, learned from, and reported on."""

from __future__ import annotations

from math import isfinite

from backend.errors import ConfigError
from backend.reporting.report import make_report
from predictor.learners.isochrone import Isochrone
from predictor.samples import SamplesError, encode_sample, read_samples, training_sample_of
from tests.fuzz.files import file_of

FORMAT = "json lines"


def check(data: bytes) -> None:
    """Samples that can be learned from, or `SamplesError`; a report, or one of its two errors."""
    path = file_of("samples.jsonl", data)
    try:
        found = read_samples(path)
    except SamplesError as error:
        assert str(error)
    else:
        learner = Isochrone()
        for sample in found.samples:
            own, seen, slowdown = training_sample_of(sample, found.features)
            learner.learn_one(own, seen, slowdown)
            assert isfinite(learner.predict_one(own, seen))
            encode_sample(sample)
    try:
        make_report(path).markdown()
    except (SamplesError, ConfigError) as error:
        assert str(error)
