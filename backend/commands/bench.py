"""`isochrone bench` from its options to its tables and files."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from backend.errors import ConfigError, IsochroneError
from backend.load import figures
from backend.load.inputs import server_payloads, solo_ms
from backend.load.interleaved_load import Bench, Schedule
from backend.load.options import numbers
from backend.load.outcomes import MeasuredLoad
from backend.load.workload import check_deadlines, read_workload
from backend.progress_bar import StageBar, console

_LOAD_MAX, _REPEATS_MAX = 1e3, 1000
_LATE_MS = 10.0
"""A generator that is this late was part of what it measured."""
INTERRUPTED = 130


def run_bench(
    file: Path, given: Sequence[str], load: str = "1", repeats: int = 1, seed: int = 1, folder: Path | None = None
) -> int:
    """The exit code. file: a workload's. given: servers as NAME=HOST:PORT, or HOST:PORT. load: with commas between.

    Raises ConfigError for what the user wrote wrong, ServerError where a server is not there.
    """
    workload, trace = read_workload(file)
    loads = numbers("--load", load, 0.0, _LOAD_MAX)
    if not 1 <= repeats <= _REPEATS_MAX:
        raise ConfigError(f"--repeats must lie in 1..{_REPEATS_MAX}, got {repeats}")
    if folder is not None:
        figures.make_folder(folder)
    servers = _servers(given)
    models = [asked.model for asked in workload.models]
    schedule = Schedule(workload, trace, loads, repeats, seed)
    for at in loads:
        if not workload.planned(at, seed, trace):
            raise ConfigError(f"no request arrives in {workload.seconds:g} s at load {at:g}; ask for more of either")
    for url in servers.values():
        payloads = server_payloads(url, models)
        check_deadlines(workload, solo_ms(url, payloads))
    out = console()
    code = 0
    with StageBar(out, schedule.seconds(len(servers))) as stages:
        bench = Bench(schedule, payloads, stages.begin, stages.advance)
        try:
            bench.run(servers)
        except IsochroneError as error:
            code = 2
            print(f"isochrone: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            code = INTERRUPTED
            print("isochrone: interrupted; what follows is partial", file=sys.stderr)
    if bench.measured:
        found = figures.points(bench.measured)
        _show(out, found, list(servers), schedule)
        if folder is not None:
            conditions = {"servers": servers, "seed": seed, "workload": workload, "host": platform.node()}
            figures.write(folder, found, bench.measured, conditions)
            _draw(out, found, bench.measured, list(servers), folder)
    return code


def _servers(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, url = text.partition("=")
        url = url if equals else name
        host, colon, port = url.rpartition(":")
        if not (name and host and colon and port.isdigit()):
            raise ConfigError(f"--server must be HOST:PORT of a gRPC endpoint or NAME=HOST:PORT, got '{text}'")
        if name in found:
            raise ConfigError(
                f"two servers are named '{name}'; give each --server a NAME of its own, as NAME=HOST:PORT"
            )
        found[name] = url
    return found


def _show(out: Console, found: Sequence[figures.MeasuredPoint], targets: Sequence[str], schedule: Schedule) -> None:
    workload = schedule.workload
    out.print(figures.table(found, targets))
    out.print(
        f"{len(workload.models)} models, {workload.arrivals} arrivals over {workload.seconds:g} s × "
        f"{schedule.repeats}, seed {schedule.seed}; latencies count from the planned instant",
        highlight=False,
        soft_wrap=True,
    )
    late = max(found, key=lambda p: p.sent_late_ms)
    if late.sent_late_ms > _LATE_MS:
        out.print(
            f"this machine could not send in time: p99 {late.sent_late_ms:.0f} ms late at load {late.load:g}, which is "
            "in the latencies",
            highlight=False,
            soft_wrap=True,
        )


def _draw(
    out: Console,
    found: Sequence[figures.MeasuredPoint],
    measured: Sequence[MeasuredLoad],
    targets: Sequence[str],
    folder: Path,
) -> None:
    if find_spec("matplotlib") is None:
        out.print("no plots: matplotlib is missing (pip install 'isochrone[bench]')", highlight=False)
        return
    from backend.load.plots import draw  # noqa: PLC0415 - an extra

    draw(found, measured, targets, folder)
