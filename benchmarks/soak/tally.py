"""The clients' own count: what became of each request, by model."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Mapping

from tritonclient.utils import InferenceServerException

ANSWERED = "answered"
REJECTED = "rejected"
INVALID = "invalid"
"""Refused by this backend: a parameter that it cannot read."""
TRITON = "refused by Triton"
"""Before it reached the backend; Triton counts it nowhere."""
CANCELLED = "cancelled"
NOT_LOADED = "not loaded"
UNLOADING = "unloading"
WRONG = "WRONG ANSWER"
"""Status OK, and another answer than the model's."""

EXPECTED = (ANSWERED, REJECTED, INVALID, TRITON, CANCELLED, NOT_LOADED, UNLOADING)
"""Outcomes that a soak means to have; any other one is a failure."""
_SENTENCES = {
    r"model '\w+': slo_ms is -1": INVALID,
    r"model '\w+': the request cannot meet its deadline": REJECTED,
    r"model '\w+': \d+ requests are waiting already": REJECTED,
    r"model '\w+': the model is being unloaded|^the model is being unloaded": UNLOADING,
    r"Locally cancelled by application": CANCELLED,
    r"data-type is 'FP64', but model|expects 'FP32'|data-type": TRITON,
    r"[Rr]equest for unknown model|is not at ready state|has no available versions": NOT_LOADED,
}


def outcome_of(error: InferenceServerException) -> str:
    """The error's sentence itself, where no soak means to have that."""
    sentence = str(error)
    for pattern, outcome in _SENTENCES.items():
        if re.search(pattern, sentence):
            return outcome
    return sentence


class Tally:
    """Counts by model and outcome. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: Counter[str] = Counter()
        self._outcomes: dict[str, Counter[str]] = {}

    def sent(self, model: str) -> None:
        """Counts a request that leaves now."""
        with self._lock:
            self._sent[model] += 1

    def ended(self, model: str, outcome: str) -> None:
        """Counts what became of one."""
        with self._lock:
            self._outcomes.setdefault(model, Counter())[outcome] += 1

    def counts(self) -> Mapping[str, Counter[str]]:
        """Outcomes by model, with those still under way as `under way`."""
        with self._lock:
            found = {model: Counter(self._outcomes.get(model, {})) for model in self._sent}
            for model, outcomes in found.items():
                if under_way := self._sent[model] - outcomes.total():
                    outcomes["under way"] = under_way
            return found
