"""The predictor's state in the runtime folder."""

from __future__ import annotations

import logging
from math import isfinite

from predictor import state_file
from predictor.features import CoRunner, Own, exposure
from predictor.workload import Load
from tests.fuzz.files import file_of

FORMAT = "msgpack"
_OWN = Own("resnet50", 1, Load(5_000_000, 0.5, 0.2, 0.3))
_OTHER = Own("vgg19", 2, Load(9_000_000, 0.8, 0.4, 0.6, 40_000))
_SEEN = exposure(_OWN, [CoRunner(_OTHER.model, _OTHER.batch_size, _OTHER.load, 0.0, 0.7)])


def check(data: bytes) -> None:
    """Never an error: the state, or the prior. Either predicts, learns, and can be kept again."""
    log = logging.getLogger("isochrone.predictor")
    log.disabled = True  # a sentence per execution
    try:
        learned = state_file.load(file_of("cpu.state", data))
    finally:
        log.disabled = False
    for slowdown in (1.0, 1.5):
        assert isfinite(learned.learner.predict_one(_OWN, _SEEN))
        learned.learner.learn_one(_OWN, _SEEN, slowdown)
        learned.bound.learn_one(slowdown)
    assert isfinite(learned.bound.multiplier)
    state_file.encode(learned)
