"""The clients' count of each model's requests against /metrics, to the request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.soak.tally import ANSWERED, CANCELLED, EXPECTED, INVALID, NOT_LOADED, REJECTED, TRITON, UNLOADING

_OURS = "isochrone_requests_total"
_TRITON_OK, _TRITON_FAILED = "nv_inference_request_success_total", "nv_inference_request_failure_total"
"""As the parser names counters, whatever /metrics calls them."""


@dataclass(frozen=True)
class ServerCounts:
    """Counts of /metrics for one model. ours: by outcome; triton_ok, triton_failed: of its own counters."""

    ours: Counter[str]
    triton_ok: int
    triton_failed: int


@dataclass(frozen=True)
class Account:
    """One model's requests on both sides. wrong: sentences on all that does not agree."""

    model: str
    clients: Mapping[str, int]
    server: ServerCounts
    wrong: tuple[str, ...]


def server_counts(metrics: str) -> dict[str, ServerCounts]:
    """Counts by model, from the text of /metrics."""
    ours: dict[str, Counter[str]] = {}
    triton: dict[str, Counter[str]] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            model = sample.labels.get("model", "")
            if sample.name == _OURS:
                ours.setdefault(model, Counter())[sample.labels["outcome"]] += int(sample.value)
            elif sample.name in (_TRITON_OK, _TRITON_FAILED):
                triton.setdefault(model, Counter())[sample.name] += int(sample.value)
    return {
        model: ServerCounts(
            ours.get(model, Counter()),
            triton.get(model, Counter())[_TRITON_OK],
            triton.get(model, Counter())[_TRITON_FAILED],
        )
        for model in ours.keys() | triton.keys()
    }


def account(model: str, clients: Counter[str], server: ServerCounts, *, unloaded: bool) -> Account:
    """unloaded: the model was gone meanwhile, so that Triton's own counters began anew; ours did not."""
    ours = server.ours
    served = ours["met"] + ours["missed"]
    # A cancellation that comes after the launch changes nothing: the request runs, and counts as served.
    ran_all_the_same = clients[CANCELLED] - ours["cancelled"] - server.triton_failed * (not unloaded)
    pairs = [
        ("served", served, clients[ANSWERED] + ran_all_the_same),
        ("rejected", ours["rejected"], clients[REJECTED]),
        ("failed", ours["failed"], clients[INVALID] + clients[UNLOADING]),
    ]
    if not unloaded:
        reached = clients.total() - clients[TRITON] - clients[NOT_LOADED]
        pairs.append(("counted by Triton", server.triton_ok + server.triton_failed, reached))
    wrong = [f"{what}: {here} in /metrics, {there} by the clients" for what, here, there in pairs if here != there]
    if ran_all_the_same < 0:
        wrong.append(f"{ours['cancelled']} cancelled in /metrics, {clients[CANCELLED]} by the clients")
    wrong += [f"{count} × {outcome}" for outcome, count in clients.items() if outcome not in EXPECTED]
    return Account(model, dict(clients), server, tuple(wrong))


def accounts(
    clients: Mapping[str, Counter[str]], metrics: str, unloaded: frozenset[str] = frozenset()
) -> list[Account]:
    """An account per model that anything was sent to."""
    found = server_counts(metrics)
    nothing = ServerCounts(Counter(), 0, 0)
    return [
        account(model, counts, found.get(model, nothing), unloaded=model in unloaded)
        for model, counts in clients.items()
    ]
