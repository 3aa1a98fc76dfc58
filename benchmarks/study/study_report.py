"""The study's report in Markdown: conditions, tables, plots, and beside each what the paper found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from backend.linux.cpu_topology import cores
from benchmarks.harness import markdown
from benchmarks.harness.machine import versions
from benchmarks.study import tables
from benchmarks.study.numbers import FEWEST, TRAIN_SHARE
from benchmarks.study.plan import COPIED, CPU_STEAL_MAX, TEST_SETS, TRAINING
from benchmarks.study.results import Results
from profiler.host import cpu_name

_PAPER_TABLE = {
    TRAINING: (0.0355, 0.0355, 0.0355),
    TEST_SETS[0]: (0.0394, 0.0346, 0.0343),
    TEST_SETS[1]: (0.5480, 0.4311, 0.3467),
    TEST_SETS[2]: (0.2065, 0.1679, 0.1499),
}
_PAPER_P95 = 1.5166
_IN_WORDS = {3: "three", 6: "six"}
"""Numbers of models, of the quick study and the whole one."""


def report(results: Results, plots: Mapping[str, Path], folder: Path) -> str:
    """`folder`: where the report will lie; plots are linked relative to it."""
    image = {name: markdown.image(path, folder) for name, path in plots.items()}
    parts = (
        _head(results),
        _conditions(results),
        _throughput(results, image["throughput"]),
        _tasks(results, image["tasks"]),
        _interference(results, image["interference"]),
        _features(results, image["features"]),
        _learners(results, image["learners"]),
        _bars(results),
        _differences(results),
    )
    return markdown.document(parts)


def _head(results: Results) -> str:
    lanes = " and ".join(str(n) for n in results.lanes)
    return (
        "# The paper's evaluation, on this server\n\n"
        "*ML Inference Scheduling with Predictable Latency* (Zhao and Georgantas, MAIoT '25, arXiv 2512.18725) asks "
        "how well interference between co-located batches is predicted. This is its protocol on logs of a stock "
        f"tritonserver with the Isochrone backend, {_IN_WORDS[len(results.plan.models)]} models, {lanes} lanes, and "
        "the same protocol for our own predictor. `make study` runs all of it and writes this file."
    )


def _conditions(results: Results) -> str:
    plan = results.plan
    rows = []
    for lanes, found in results.lanes.items():
        for log in plan.logs:
            run = found.runs[log.name]
            rates = [sum(rates.values()) for rates in run.rates_per_s]
            rows.append(
                (
                    log.name,
                    str(lanes),
                    ", ".join(f"{model} {weight:g}" for model, weight in log.weights.items()),
                    f"{_list(log.loads)} ({min(rates):.0f}–{max(rates):.0f}/s)",
                    str(log.seed),
                    f"{run.requests:,}",
                    f"{found.recorded[log.name]:,}",
                    f"{found.batches[log.name]:,}",
                    str(run.failed),
                    f"{run.cpu_steal.share:.1%}",
                )
            )
    return (
        "## Conditions\n\n"
        f"{cpu_name()}, {len(cores())} cores that server, lanes, scheduler and load generator share; "
        f"{versions('isochrone', 'nvidia-pytriton', 'onnxruntime', 'numpy')}. "
        "A lane is a thread on a core of its own; with more lanes than cores "
        "they take turns. Batches launch in order of arrival as soon as a lane is free, up to 8 requests each, so that "
        "nothing of our scheduler shapes the logs. Poisson arrivals per model; a load of 1 asks for as much work as "
        "would keep every core busy with batches of one at their profiled latency; "
        f"{plan.logs[0].seconds:g} s at each load, one after the other. The machine is a virtual one, and when its "
        "host takes CPU away a batch takes up to a hundred times as long, which says nothing of its co-runners. So "
        "batches during which the kernel saw that (/proc/stat, looked at every 20 ms) are left out, and a log that "
        f"loses more than {100 * CPU_STEAL_MAX:.0f} % of the CPU is recorded a second time, of which the better one "
        f"counts. A log with fewer than {FEWEST} undisturbed batches keeps all of them. Table 1 is shown for all "
        "batches too.\n\n"
        + markdown.table(
            "log | lanes | models and relative rates | loads | seed | requests | batches | undisturbed | failed | "
            "CPU taken by the host",
            rows,
        )
    )


def _throughput(results: Results, image: str) -> str:
    return (
        f"## Throughput over batch size (the paper's figure 2)\n\n{image}\n\n"
        + tables.throughput(results.profiles)
        + "\n\nThe paper's L4 gains more than 200 % on ResNet-50 and 26.5 % on RoBERTa-B. One CPU core is full with a "
        "batch of one, so batching saves little here but the work per call."
    )


def _tasks(results: Results, image: str) -> str:
    by = {(t.lanes, t.tasks): t for t in results.tasks}
    rows = []
    for n in results.plan.tasks:
        one, two = by[1, n], by[2, n]
        rows.append(
            (
                str(n),
                f"{one.p50_ms:.0f} / {one.p99_ms:.0f}",
                f"{two.p50_ms:.0f} / {two.p99_ms:.0f}",
                f"{two.p99_ms / one.p99_ms:.2f}",
                f"{one.requests:,} / {two.requests:,}",
                str(one.failed + two.failed),
            )
        )
    lower = sum(by[2, n].p99_ms < by[1, n].p99_ms for n in results.plan.tasks)
    return (
        f"## Sequential and concurrent execution (figure 3)\n\n{image}\n\n"
        + markdown.table(
            "tasks | sequential p50 / p99 ms | concurrent p50 / p99 ms | p99 ratio | requests | failed", rows
        )
        + f"\n\nCopies of {COPIED} share a load of {results.plan.task_load:g} of one core, "
        f"{results.plan.task_seconds:g} s each, the same arrivals for both. In the paper concurrency keeps the tail "
        f"lower at every number of tasks, here at {lower} of {len(rows)}. "
        "Unlike on a GPU, where sequential execution has the whole device, one lane here has one core, so "
        "part of the gain is the second core."
    )


def _interference(results: Results, image: str) -> str:
    paper = f"{_PAPER_P95:.2%}"
    return (
        f"## How large interference is (section 3)\n\n{image}\n\n"
        + tables.interference(results.lanes)
        + f"\n\nMeasured execution in percent of the profiled p95. The paper reports up to {paper} at the 95th "
        "percentile for two concurrent batches on an L4. More lanes than cores share a core by turns, which is the "
        "dominant effect there."
    )


def _features(results: Results, image: str) -> str:
    return (
        f"## What coarse features lose (figure 5)\n\n{image}\n\n"
        + tables.features(results.lanes)
        + f"\n\nThe gpulets form (linear) fitted on {TRAIN_SHARE:.0%} of all batches of all logs, drawn at random, and "
        "tested on the rest; boxes: quartiles, whiskers: 5 and 95 %. *Static*: the co-runners at launch; *EWMA*: "
        "smoothed at each arrival and departure; *integral*: their exact time mean, which is what this backend keeps. "
        "The paper shows static and EWMA only: medians below 20 %, some beyond 60 %."
    )


def _learners(results: Results, image: str) -> str:
    logs = {log.name: log for log in results.plan.logs}
    parts = [f"## Static and online learning (table 1)\n\n{image}"]
    for lanes, found in results.lanes.items():
        parts += [tables.errors(lanes, found), tables.relative_errors(lanes, found)]
        parts.append(tables.errors_of_all(lanes, found))
    paper = [(name, *(f"{v:.4f}" for v in values)) for name, values in _PAPER_TABLE.items()]
    parts.append(
        "The paper's, two batches at a time on an L4:\n\n" + markdown.table("set | offline | SGD | RLS", paper)
    )
    parts.append(
        f"Training set: {_list(logs[TRAINING].weights)}. Test set 1: the same models at other loads; 2: "
        f"{_list(logs[TEST_SETS[1]].weights)}; 3: all {_IN_WORDS[len(results.plan.models)]}. "
        "Offline, SGD and RLS start from the same least squares weights of the training set; ours learns it batch by "
        "batch. A label is revealed once its batch has ended. *Trees*: gradient boosting that predicts each tenth of a "
        "set from the other nine, and knows more than any learner may: batches that come later, the time, which models "
        "ran beside a batch for how long, and through these overlaps something of its own duration. *Noise* is what "
        "of the variance remains between two batches of one model and size as their co-runners and their place in the "
        "log grow alike, estimated by the Gamma test (Stefánsson, Končar and Jones, 1997; Evans and Jones, 2002) over "
        "ten nearest neighbours each: what no predictor explains that knows these. *Noise of twins* is the "
        "pooled variance of batches with the same model, size and co-runners (by model, size and eighths of overlap), "
        "over the share of batches that have such a twin, which are easier than the others."
    )
    return "\n\n".join(parts)


def _bars(results: Results) -> str:
    return (
        "## Ours beside the paper's RLS\n\n"
        + tables.against_rls(results.lanes)
        + "\n\nWhere the noise alone is above the goal, no predictor can reach it from who ran beside whom, where and "
        "when. It is an estimate, of nearly all batches of a set; trees that know the rest of the same set, and a "
        "little more, end close to it. Of twins: over the batches that have one. *Trees that "
        "count* are also told how many co-runners there were, and how many of them came after the batch did, on its "
        "core and elsewhere. That is a clock, and so it tells the answer: the longer a batch takes, the more come and "
        "go meanwhile. Nobody knows it at a launch, so our learner is not told."
    )


def _differences(results: Results) -> str:
    cpu_steal = max(run.cpu_steal.share for found in results.lanes.values() for run in found.runs.values())
    losses = [
        f"{found.tested[TEST_SETS[1]].scores['offline'].mse / found.training[0]:.1f} times with {lanes} lanes"
        for lanes, found in results.lanes.items()
    ]
    return (
        "## Where our numbers differ from the paper's, and why\n\n"
        "- **Device.** The paper's batches share an L4's memory system and its compute units; ours have a core each "
        "and share last-level cache, memory and whatever else runs on the cores: Triton, the load generator and "
        f"the host's other guests, which took up to {cpu_steal:.0%} of the CPU during a log. Errors are therefore "
        "noise to a larger part (see the table) and interference to a smaller one with two lanes.\n"
        "- **Features.** The paper reads SM, L2 and DRAM throughput from Nsight Compute. Here they follow from the "
        "model graph's operations and bytes and the machine's measured peaks.\n"
        "- **p95 as the unit.** A p95 of a noisy machine lies above its p50 by more than a GPU's, so that batches "
        "without co-runners come out below 100 %.\n"
        "- **New models.** Test set 2 costs the paper's static weights 15 times their training error; here "
        f"{' and '.join(losses)}."
    )


def _list(items: Iterable[object]) -> str:
    return ", ".join(f"{item:.1f}" if isinstance(item, float) else str(item) for item in items)
