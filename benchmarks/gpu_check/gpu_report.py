"""The report in Markdown, of whatever is recorded: each part says so where it is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from backend.load.figures import Cell, cell, points
from benchmarks.gpu_check.agreement import BOUND, agrees
from benchmarks.gpu_check.plan import SLO_MIN_MS
from benchmarks.gpu_check.records import AWARE, IN_ORDER, IN_PROCESS, SERVER, CheckRecords
from benchmarks.gpu_check.through_server import RATE_MAX_PER_S
from benchmarks.harness import markdown
from benchmarks.harness.kept import kept, number
from benchmarks.harness.loads import SLO_FACTORS
from benchmarks.study import tables
from predictor.samples import read_samples

if TYPE_CHECKING:  # at run time it needs scikit-learn, an extra
    from benchmarks.study.results import Results

_TRANSFERS = ("transfer_in_ns", "transfer_out_ns")
_LATE_MS = 5.0
"""A driver that is this late was part of what it measured."""


def report(records: CheckRecords, study: Results | str) -> str:
    """study: of the records' logs, or why there is none."""
    parts = (
        _head(records),
        _conditions(records),
        _engines(records),
        _agreement(records),
        _profiles(records),
        _comparison(records),
        _server(records),
        _predictions(records),
        _study(records, study),
    )
    return markdown.document(parts)


def _head(records: CheckRecords) -> str:
    if records.target.device_id is None:
        return "# The check of a GPU, on a CPU\n\n**It shows that all of it runs; no figure says anything of a GPU.**"
    return (
        "# On a GPU\n\n"
        "`make gpu-check` runs all of this on the first GPU that CUDA sees and writes this file: six models at full "
        "scale, their outputs beside ONNX Runtime's on the CPU, their latencies alone, and what happens when they "
        "share the device. Nothing of it needs a network."
    )


def _conditions(records: CheckRecords) -> str:
    facts = "; ".join(f"{name} {text}" for name, text in records.target.facts.items())
    models = f"the zoo's at {records.plan.scale} scale" if records.source is None else f"of '{records.source}'"
    clocks = dict.fromkeys(text for turn in records.turns(IN_PROCESS) for text in turn.clocks)
    seen = "; ".join(clocks) or "no load was run yet"
    return (
        f"**Conditions.** {records.target.name}; {facts}. Models: {models}. Clocks before and after each load: {seen}. "
        f"Seed {records.plan.seed}."
    )


def _engines(records: CheckRecords) -> str:
    built = records.built()
    rows = [
        [model, found.engine or "**none**", f"{found.seconds:.0f}", _skipped(found.skipped)]
        for model, found in built.items()
    ]
    return _section(
        "Engines",
        "build",
        rows,
        "model | engine | built and opened in, s | what did not work",
        "A plan of `isochrone build` (types as in the model) where TensorRT is there, else ONNX Runtime.",
    )


def _skipped(skipped: dict[str, str]) -> str:
    return "; ".join(f"{engine}: {why}" for engine, why in skipped.items()).replace("|", "\\|") or "–"


def _agreement(records: CheckRecords) -> str:
    usable = records.usable()
    rows = [
        [
            model,
            usable.get(model, "–"),
            str(found.batch_size),
            "not comparable" if found.worst is None else f"{found.worst:.1e}",
            "yes" if agrees(found) else "**no**",
        ]
        for model, agreements in records.agreements().items()
        for found in agreements
    ]
    return _section(
        "Outputs",
        "check",
        rows,
        f"model | engine | batch | relative error | within {BOUND:g}",
        "‖device − CPU‖ / ‖CPU‖ of random inputs, of the output that differs most; ONNX Runtime on the CPU computes in "
        "FP32. NVIDIA's libraries round the factors of FP32 products to TF32, with 10 bits, unless the environment has "
        "`NVIDIA_TF32_OVERRIDE=0` as the models are built and run: an error of about 1e-3 that this takes away "
        "comes from there.",
    )


def _profiles(records: CheckRecords) -> str:
    profiles = records.profiles()
    if not profiles:
        return _not_done("Alone", "profile")
    return (
        f"## Alone\n\n{tables.throughput(profiles)}\n\nExecution without the copies, as `isochrone profile` measures "
        f"it; its features are from: {', '.join(dict.fromkeys(file.features_from for file in profiles.values()))}."
    )


def _comparison(records: CheckRecords) -> str:
    rows = [row for lanes in records.plan.lanes for row in _rows(records, IN_PROCESS, lanes)]
    what = (
        "In this process, through the scheduler, lanes and engines that serve, without a server. Poisson arrivals, the "
        "same for both orders: all models at equal rates, load 1 is what one lane could answer alone with the best "
        f"batch size. Deadlines of {', '.join(f'{f:g}' for f in SLO_FACTORS)} × p95 alone, by turns over the models, "
        f"{SLO_MIN_MS:g} ms at least; two classes by threes. {records.plan.seconds:g} s or {records.plan.requests:,} "
        "requests per load, whichever is less."
    )
    late = [p.sent_late_ms for turn in records.turns(IN_PROCESS) for p in points(turn.measured)]
    if late and max(late) > _LATE_MS:
        what += f" At worst 1 % of a load's requests came {max(late):.0f} ms late or more, which is in their latencies."
    return _section("Together: stock's order and ours", "colocate", rows, _HEADER, what)


_HEADER = (
    f"lanes | load | requests/s | kept {IN_ORDER}, % (class 1 / 2) | kept {AWARE}, % (class 1 / 2) | "
    f"goodput/s {IN_ORDER} | goodput/s {AWARE} | p99 {IN_ORDER}, ms | p99 {AWARE}, ms"
)


def _rows(records: CheckRecords, where: str, lanes: int) -> list[list[str]]:
    turns = [records.turn(where, lanes, order) for order in (IN_ORDER, AWARE)]
    known = next((turn for turn in turns if turn is not None), None)
    if known is None:
        return []
    rows = []
    for load, rate in zip(records.plan.loads, known.rates_per_s, strict=True):
        cells = [None if turn is None else cell(points(turn.measured), turn.order, load) for turn in turns]
        rows.append(
            [
                str(lanes),
                f"{load:g}",
                f"{rate:.0f}",
                *(_shown(found, kept) for found in cells),
                *(_shown(found, lambda c: number(c.median(lambda p: p.all.goodput_per_s), 0)) for found in cells),
                *(_shown(found, lambda c: number(c.median(lambda p: p.all.p99_ms), 1)) for found in cells),
            ]
        )
    return rows


def _shown(found: Cell | None, text: Callable[[Cell], str]) -> str:
    return "–" if not found else text(found)


def _server(records: CheckRecords) -> str:
    title = "Together: through tritonserver"
    if why := records.server_skipped():
        return f"## {title}\n\nSkipped: {why}."
    rows = _rows(records, SERVER, records.plan.server_lanes)
    what = (
        "The same on a stock tritonserver with this backend, through tritonclient's gRPC on the same machine; at most "
        f"{RATE_MAX_PER_S:.0f} requests/s in all, beyond which the client would be what is measured."
    )
    return _section(title, "colocate", rows, _HEADER, what)


def _predictions(records: CheckRecords) -> str:
    rows = []
    for turn in records.turns(IN_PROCESS):
        path = records.turn_samples(turn.where, turn.lanes, turn.order)
        if turn.order != AWARE or not path.is_file():
            continue
        samples = read_samples(path).samples
        slowdowns = np.percentile([s.slowdown for s in samples], (50, 95))
        off = [abs(s.predicted_ns - s.exec_ns) / s.exec_ns for s in samples if s.predicted_ns is not None]
        rows.append(
            [
                str(turn.lanes),
                f"{len(samples):,}",
                f"{np.mean([s.batch_size for s in samples]):.1f}",
                *(f"{q:.2f}" for q in slowdowns),
                f"{100 * median(off):.1f}",
                " / ".join(f"{median(getattr(s, ns) for s in samples) / 1e6:.2f}" for ns in _TRANSFERS),
            ]
        )
    return _section(
        "Predicted and measured",
        "colocate",
        rows,
        "lanes | batches | rows | slowdown p50 | slowdown p95 | prediction off by, p50 % | in / out, p50 ms",
        f"Every batch of the loads above under *{AWARE}*, all loads of a row together; the scheduler had learned "
        "nothing before. In, out: measured copies of a batch's inputs and outputs.",
    )


def _study(records: CheckRecords, study: Results | str) -> str:
    title = "The paper's protocol"
    if isinstance(study, str):
        return f"## {title}\n\nSkipped: {study}."
    from benchmarks.study.numbers import FEWEST  # noqa: PLC0415 - needs scikit-learn, an extra

    plan = records.plan
    parts = [
        f"## {title}",
        "As in [study.md](study.md), in this process and in order of arrival: four logs per number of lanes, at loads "
        f"{', '.join(f'{load:g}' for load in plan.study_loads)} (1: batches of one on one lane), at most "
        f"{plan.study_requests} requests each; batches during which the host took CPU are left out unless fewer than "
        f"{FEWEST} stay. Measured execution in percent of the profiled p95:",
        tables.interference(study.lanes),
        "Relative error of the linear model by what it sees of a batch's co-runners:",
        tables.features(study.lanes),
    ]
    for lanes, found in study.lanes.items():
        parts += [tables.errors(lanes, found), tables.relative_errors(lanes, found)]
    return "\n\n".join([*parts, "Ours beside the paper's RLS:", tables.against_rls(study.lanes)])


def _section(title: str, part: str, rows: Sequence[Sequence[str]], header: str, what: str) -> str:
    if not rows:
        return _not_done(title, part)
    return f"## {title}\n\n{markdown.table(header, rows)}\n\n{what}"


def _not_done(title: str, part: str) -> str:
    return f"## {title}\n\nNot done yet: `python -m benchmarks.gpu_check --part {part}`."
