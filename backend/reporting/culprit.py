"""Names the model that costs the others most, where one clearly does; else nobody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from backend.reporting.attribution import BY_OTHERS, Attribution

SUFFERERS_MIN = 20
"""Late requests, or batches, of other models: fewer tell nothing."""
TIMES_AS_MUCH = 2.0
"""It costs them so many times what any other model does, their own included, and what they cost it."""
SHARE_MIN = 0.1
"""It costs them at least this share of their time."""
STRETCHES, STRETCHES_MIN = 10, 8
"""In so many of ten equal stretches it costs them more than any other model does: else one bad moment would do."""


class Suffering(NamedTuple):
    """One late request, or one batch of a log without requests: whose, its time, and what of it each model caused."""

    model: str
    total_ns: int
    caused_ns: Counter[str]


class Culprit(NamedTuple):
    """The model, and what it costs the others: late requests, or batches where the log has no requests.

    sufferers: how many of other models there are; second, second_ns: the model that costs these most but for it.
    """

    model: str
    sufferers: int
    total_ns: int
    caused_ns: int
    second: str | None
    second_ns: int

    @property
    def share(self) -> float:
        """Share of the sufferers' time."""
        return self.caused_ns / max(1, self.total_ns)


def sufferings(found: Attribution) -> list[Suffering]:
    """Late requests in the order of their answers; batches in that of the log where it has no requests."""
    if found.lane_time is None:
        return [
            Suffering(
                batch.own.model,
                batch.running_ns,
                Counter({by: span_ns for by, span_ns in interference.items() if by is not None}),
            )
            for batch, interference in found.batches
        ]
    return [Suffering(late.model, late.total_ns, _caused(late.parts.items())) for late in found.late]


def _caused(parts: Iterable[tuple[tuple[str, str | None], int]]) -> Counter[str]:
    caused: Counter[str] = Counter()
    for (cause, model), span_ns in parts:
        if cause in BY_OTHERS and model is not None:
            caused[model] += span_ns
    return caused


def find_culprit(found: Sequence[Suffering]) -> Culprit | None:
    """None where no model stands out."""
    models = {model for suffering in found for model in suffering.caused_ns}
    accused = filter(None, (_accuse(model, found) for model in sorted(models)))
    return max(accused, key=lambda culprit: culprit.caused_ns, default=None)


def _accuse(model: str, found: Sequence[Suffering]) -> Culprit | None:
    others = [suffering for suffering in found if suffering.model != model]
    if len(others) < SUFFERERS_MIN:
        return None
    caused = _sum(others)
    total_ns, caused_ns = sum(suffering.total_ns for suffering in others), caused.pop(model, 0)
    second, second_ns = max(caused.items(), key=lambda item: item[1], default=(None, 0))
    own = _sum(suffering for suffering in found if suffering.model == model)
    suffered_ns = sum(span_ns for by, span_ns in own.items() if by != model)
    if caused_ns < SHARE_MIN * total_ns or caused_ns < TIMES_AS_MUCH * max(second_ns, suffered_ns):
        return None
    stretches = [others[i * len(others) // STRETCHES : (i + 1) * len(others) // STRETCHES] for i in range(STRETCHES)]
    if sum(_leads(model, _sum(stretch)) for stretch in stretches) < STRETCHES_MIN:
        return None
    return Culprit(model, len(others), total_ns, caused_ns, second, second_ns)


def _sum(found: Iterable[Suffering]) -> Counter[str]:
    total: Counter[str] = Counter()
    for suffering in found:
        for model, span_ns in suffering.caused_ns.items():  # negative ones too, which `+` would drop
            total[model] += span_ns
    return total


def _leads(model: str, caused: Counter[str]) -> bool:
    return caused[model] > 0 and caused[model] >= max(caused.values())
