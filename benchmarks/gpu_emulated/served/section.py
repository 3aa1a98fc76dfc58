"""The report's section: deadlines kept on a real server next to virtual time. Emulated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.gpu_emulated.drawn_gpu import OVERHEAD_NS
from benchmarks.gpu_emulated.plan import STOCK_SERVED, Served
from benchmarks.gpu_emulated.served.repository import SMALLER
from benchmarks.gpu_emulated.served.turns import LoadKept, Turn
from benchmarks.harness import markdown


def section(served: Served, turns: Sequence[Turn], twins: Sequence[Turn]) -> str:
    """Conditions and table. turns: on the server; twins: the same in virtual time."""
    rows = []
    for rival in served.rivals:
        cells = []
        for load in served.loads:
            real, virtual = (_at(found, rival, load) for found in (turns, twins))
            more = 100 * (_share(real) - _share(virtual))
            cells.append(f"{_shown(real)}; {_shown(virtual)}; {more:+.1f}")
        rows.append([f"*{rival}*", *cells])
    return f"{_conditions(served, turns)}\n\n" + markdown.table(
        ["", *(f"load {load:g}: server; virtual time; difference" for load in served.loads)], rows
    )


def _conditions(served: Served, turns: Sequence[Turn]) -> str:
    failed = sum(load.failed for turn in turns for load in turn.loads)
    lost, late_ms = max(turn.lost for turn in turns), max(turn.late_ms for turn in turns)
    return (
        f"A tritonserver with the models of draw {served.draw} and an engine process that emulates the device; its "
        f"time is dilated {served.dilation:g} times (`ISOCHRONE_EMULATED_TIME`); requests through tritonclient's gRPC. "
        f"*{STOCK_SERVED}*: blocking Python models on the same device, dynamic batching, an instance each, and nothing "
        f"of this project's scheduler; the others run on this backend with {served.lanes} lanes. {served.repeats} "
        f"repeats by turns, each on a new server that has learned nothing: one load after the other, of each "
        f"{served.warm_s:g} s of the device's time that do not count and {served.seconds:g} s that do. In virtual time "
        f"the same requests, means of {served.chances} runs that differ by noise and tails, {OVERHEAD_NS / 1e6:g} ms "
        f"of a lane around each batch; there *{STOCK_SERVED}* is in order of arrival, one batch of a model at a time. "
        f"Tensors are {SMALLER} times smaller on a link as much slower, so that each copy takes as long. Requests left "
        f"at most {late_ms:.0f} ms late (p99, real time), {failed} failed, the machine's host took at most "
        f"{100 * lost:.0f} % of the CPU. Deadlines kept in % (class 1 / class 2), differences in points:"
    )


def _at(turns: Sequence[Turn], rival: str, load: float) -> list[LoadKept]:
    return [found for turn in turns if turn.rival == rival for found in turn.loads if found.load == load]


def _share(found: Sequence[LoadKept], of_class: str | None = None) -> float:
    """Share of deadlines over all repeats. of_class: None: of all."""

    def total(of: Callable[[LoadKept], dict[str, int]]) -> int:
        return sum(n for one in found for c, n in of(one).items() if of_class in (None, c))

    return total(lambda one: one.met) / total(lambda one: one.requests)


def _shown(found: Sequence[LoadKept]) -> str:
    classes = sorted({c for one in found for c in one.requests}, key=int)
    return f"{100 * _share(found):.1f} ({' / '.join(f'{100 * _share(found, c):.0f}' for c in classes)})"
