"""Report of a soak: tables with verdicts in Markdown, the same as JSON, and a plot of memory over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import msgspec
from matplotlib.figure import Figure

from backend.load.plots import COLOURS, STYLE, save
from benchmarks.harness import markdown
from benchmarks.harness.machine import versions
from benchmarks.soak.accounts import Account
from benchmarks.soak.growth import Growth
from benchmarks.soak.plan import JUDGED_FROM_S, SLOPE_MAX_PERCENT
from benchmarks.soak.processes import Reading
from benchmarks.soak.soak import SoakResult
from benchmarks.soak.tally import ANSWERED, CANCELLED, INVALID, NOT_LOADED, REJECTED, TRITON, UNLOADING
from profiler.host import cpu_name

REPORT, NUMBERS, PLOT = "soak.md", "soak.json", "soak.png"


def write_report(result: SoakResult, folder: Path, *, finished: bool) -> None:
    """Writes `soak.md`, `soak.json` and, once finished, `soak.png`."""
    (folder / REPORT).write_text(_text(result, finished))
    (folder / NUMBERS).write_bytes(msgspec.json.format(msgspec.json.encode(_numbers(result, finished)), indent=1))
    if finished:
        _draw(result, folder / PLOT)


def _text(result: SoakResult, finished: bool) -> str:
    wrong = [f"- {sentence}" for sentence in result.wrong] or ["- nothing"]
    return markdown.document(
        [
            "# Soak",
            f"`make soak`, {result.seconds / 60:.1f} minutes" + ("" if finished else " so far, still running") + ".",
            f"{cpu_name()}; {versions('onnxruntime', 'tritonclient')}. {result.loads} reloads of two models.",
            "## Broken bounds\n\n" + "\n".join(wrong) if finished else "",
            "## Memory\n\nResident memory from the end of the warm-up on. Slope: Theil and Sen's, in percent of the "
            f"median per ten minutes, with its 95 % interval; at least {SLOPE_MAX_PERCENT} % is too much. Of processes "
            f"that live less than {JUDGED_FROM_S / 60:.0f} minutes there is no verdict. tritonserver keeps no pool of "
            "gRPC's answers here, and glibc no large blocks that were freed.",
            markdown.table(
                "process | pid | minutes | first, MB | last, MB | PSS, MB | slope, % | verdict",
                map(_growth_row, _shown(result.growths)),
            ),
            "## Requests\n\nBy the clients, then by /metrics.",
            markdown.table(
                "model | answered | rejected | invalid | cancelled | refused by Triton | not loaded | unloading "
                "| served | rejected | failed | cancelled | Triton's success | failure | verdict",
                map(_account_row, result.accounts),
            ),
            f"![memory]({PLOT})" if finished else "",
        ]
    )


def _shown(found: Sequence[Growth]) -> list[Growth]:
    """Those that are judged, or lasted longest of their role."""
    longest: dict[str, Growth] = {}
    for growth in found:
        if growth.role not in longest or growth.seconds > longest[growth.role].seconds:
            longest[growth.role] = growth
    return [growth for growth in found if growth.judged or longest[growth.role] is growth]


def _growth_row(growth: Growth) -> list[str]:
    slope = "" if growth.percent is None else f"{growth.percent:+.2f} ({growth.low:+.2f} to {growth.high:+.2f})"
    verdict = ("grows" if growth.grows else "flat") if growth.judged else "too short"
    sizes = [f"{megabytes:.1f}" for megabytes in (growth.first_mb, growth.last_mb, growth.pss_mb)]
    return [growth.role, str(growth.pid), f"{growth.seconds / 60:.1f}", *sizes, slope, verdict]


def _account_row(found: Account) -> list[str]:
    by_clients = (ANSWERED, REJECTED, INVALID, CANCELLED, TRITON, NOT_LOADED, UNLOADING)
    ours = found.server.ours
    counts = [found.clients.get(outcome, 0) for outcome in by_clients]
    counts += [ours["met"] + ours["missed"], ours["rejected"], ours["failed"], ours["cancelled"]]
    counts += [found.server.triton_ok, found.server.triton_failed]
    return [found.model, *(f"{count:,}" for count in counts), "; ".join(found.wrong) or "agree"]


def _numbers(result: SoakResult, finished: bool) -> dict[str, object]:
    return {
        "finished": finished,
        "passed": finished and not result.wrong,
        "seconds": result.seconds,
        "reloads": result.loads,
        "wrong": result.wrong,
        "plan": result.plan,
        "processes": [{"verdict": _growth_row(growth)[-1], **msgspec.to_builtins(growth)} for growth in result.growths],
        "requests": [msgspec.to_builtins(found) for found in result.accounts],
    }


def _draw(result: SoakResult, path: Path) -> None:
    by_role: dict[str, list[Reading]] = {}
    for reading in result.readings:
        by_role.setdefault(reading.role, []).append(reading)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 4.2))
        axes = figure.subplots()
        for number, (role, readings) in enumerate(sorted(by_role.items())):
            minutes = [reading.at_s / 60 for reading in readings]
            colour, line = COLOURS[number % len(COLOURS)], "-" if number < len(COLOURS) else "--"
            rss_mb = [reading.rss_kb / 1e3 for reading in readings]
            axes.plot(minutes, rss_mb, lw=1.0, ls=line, color=colour, label=role)
        axes.axvline(result.plan.warm_up_s / 60, color="#888888", lw=0.8, ls=":")
        axes.set(xlabel="minutes", ylabel="resident memory, MB", yscale="log")
        figure.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(0.92, 0.5))
        save(figure, path)
