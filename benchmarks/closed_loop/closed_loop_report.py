"""The report in Markdown: conditions, then the high class's p99 next to each loop over its p99 alone, every server."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from backend.load.generator import TIMEOUT_S
from benchmarks.closed_loop.plan import FULL, ClosedLoopPlan
from benchmarks.closed_loop.records import LoopRecord, LoopTurn
from benchmarks.compare.servers import SERVERS
from benchmarks.harness import markdown
from benchmarks.harness.machine import versions
from benchmarks.harness.records import RunManifest
from benchmarks.models.profiles import p95_ms
from profiler.profile_file import ProfileFile


def report(
    plan: ClosedLoopPlan,
    manifest: RunManifest,
    profiles: Mapping[str, ProfileFile],
    recorded: Mapping[LoopTurn, LoopRecord],
) -> str:
    """The whole."""
    return markdown.document(
        [
            "# A high class next to a closed loop of a low one",
            "Real tritonservers on the CPU with the same ONNX models, engine and lanes: stock Triton in several "
            f"settings, other schedulers on this backend, and this one. {_command(plan)}",
            _conditions(plan, manifest, profiles, recorded),
            _table(plan, recorded),
            "\n".join(f"- *{server}*: {SERVERS[server].what}" for server in plan.servers),
        ]
    )


def _command(plan: ClosedLoopPlan) -> str:
    if plan.servers == FULL.servers:
        return "`make bench-closed-loop` runs all of it and writes this file."
    return (
        f'Of {len(FULL.servers)} servers only some, by `python -m benchmarks.closed_loop --servers "'
        f'{";".join(plan.servers)}"`; `make bench-closed-loop` takes all.'
    )


def _conditions(
    plan: ClosedLoopPlan,
    manifest: RunManifest,
    profiles: Mapping[str, ProfileFile],
    recorded: Mapping[LoopTurn, LoopRecord],
) -> str:
    phases = [phase for record in recorded.values() for phase in record.phases]
    high, low = (f"*{model}* ({p95_ms(profiles[model]):.1f} ms, p95 alone)" for model in plan.models)
    return (
        f"**Conditions.** {manifest.device}, {manifest.cores} cores shared with the clients, as many lanes. One request"
        f" per {1e3 * plan.gap_s:g} ms of {high}, class 1, deadline {plan.slo_factor:g} × that, next to a closed loop "
        f"of so many outstanding requests of {low}, class 2, without a deadline; `on_miss: serve`. A turn is a new "
        f"server that has learned nothing, first without the loop, then next to each, {plan.seconds:g} s after "
        f"{plan.warm_s:g} s that do not count; {plan.repeats} turns of each server, another one first each time. "
        f"Requests left at most {max(p.late_ms for p in phases):.1f} ms late (p99), the machine's host took at most "
        f"{100 * max(p.lost for p in phases):.0f} % of the CPU. {versions('isochrone', 'onnxruntime', 'tritonclient')}."
    )


def _table(plan: ClosedLoopPlan, recorded: Mapping[LoopTurn, LoopRecord]) -> str:
    rows = []
    for server in plan.servers:
        found = [record for turn, record in recorded.items() if turn.server == server]
        if not found:
            continue
        cells = [f"{median(r.phase(0).p99_ms for r in found):.1f}"]
        for n in plan.outstanding:
            phases = [r.phase(n) for r in found]
            unanswered = sum(p.unanswered for p in phases)
            ratio = markdown.spread([r.ratio(n) for r in found])
            cells += [f"{ratio}, {unanswered} unanswered" if unanswered else ratio]
            cells += [f"{median(p.p99_ms for p in phases):.1f}", f"{median(p.low_per_s for p in phases):.0f}"]
        rows.append([f"*{server}*", "yes" if plan.preempts(server) else "no", *cells])
    header = ["", "preempts", "p99 alone, ms"]
    for n in plan.outstanding:
        header += [f"{n} outstanding: p99 over p99 alone", "p99, ms", "low answers/s"]
    return (
        "p99 of the high class next to the loop over its p99 alone on the same server, median over the turns (least to "
        f"most); the rest are medians. Unanswered: in {TIMEOUT_S:g} s, which then count as the latency.\n\n"
        + markdown.table(header, rows)
    )
