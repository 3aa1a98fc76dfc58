"""Broken requests and broken models on a real server that serves others meanwhile: what is sent, and what is counted.

Knows no test; `python -m tests.server.malformed` and the tests run it.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.load.outcomes import percentile
from backend.server.embedded import EmbeddedServer
from tests.server.control import EXPLICIT, load, remember_profile
from tests.server.harness import mlp, write_model
from tests.server.malformed.asked import CONFIGS
from tests.server.malformed.broken_models import folders
from tests.server.malformed.in_process import entry_point, said_of
from tests.server.malformed.loader import Account, Loader, fault
from tests.server.open_loop import Asked, OpenLoop

ROOT = Path(__file__).resolve().parents[3]
GOOD = mlp(16, 4, 7, hidden=512)
GOOD_PER_S = 25.0
BROKEN_PER_S, BROKEN_PER_S_AT_ONCE = 40.0, 150.0
"""Of several windows, which are compared, and of a single one."""
_SETTLED_S = 20.0


@contextmanager
def serving(repository: Path) -> Iterator[EmbeddedServer]:
    """A server with the models of `asked`, and with "good"."""
    models = {**CONFIGS, "good": (GOOD, 'backend: "isochrone"\nmax_batch_size: 8\n')}
    for name, (model, config) in models.items():
        write_model(repository, name, model, config)
    with EmbeddedServer(repository, extra=EXPLICIT) as server:
        for name, (_, config) in models.items():
            remember_profile(server, repository / name, solo_ms=0.3, max_batch_size=1 if ": 0" in config else 8)
        refused = load(server, models)
        assert refused == {}, refused
        yield server


@dataclass
class RequestsReport:
    """faults: of answers to broken requests. p99_ms: of the good traffic by what else was sent, window by window:
    "none", as many "right" requests, and the "broken" ones; p99_ms_in_all: over all windows of a kind.
    """

    sent: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    good: int = 0
    good_wrong: int = 0
    p99_ms: dict[str, list[float]] = field(default_factory=dict)
    p99_ms_in_all: dict[str, float] = field(default_factory=dict)
    slowest_s: float = 0.0


def broken_requests(server: EmbeddedServer, seed: int, count: int, windows: int = 1) -> RequestsReport:
    """Send that many beside good traffic, in so many windows. Of several, each comes after one
    without any, and one with right ones in their place.
    """
    report, beside = RequestsReport(), dict[str, list[Asked]]()
    each, rate_per_s = count // windows, BROKEN_PER_S if windows > 1 else BROKEN_PER_S_AT_ONCE
    with OpenLoop(server.grpc_url, "good", GOOD, GOOD_PER_S) as good:
        time.sleep(1.0)
        for window in range(windows):
            for kind in ("none", "right", "broken") if windows > 1 else ("broken",):
                began_s = time.monotonic()
                if kind == "none":
                    time.sleep(each / BROKEN_PER_S)
                else:
                    _send(
                        server, seed + window, each, rate_per_s, kind, report if kind == "broken" else RequestsReport()
                    )
                sent = good.sent(began_s, time.monotonic())
                time.sleep(0.5)
                beside.setdefault(kind, []).extend(sent)
                report.p99_ms.setdefault(kind, []).append(p99_ms(sent))
    report.good, report.good_wrong = len(good.asked), len(good.failures())
    report.p99_ms_in_all = {kind: p99_ms(sent) for kind, sent in beside.items()}
    return report


def p99_ms(asked: list[Asked]) -> float:
    """99th percentile of these latencies in milliseconds."""
    return percentile([each.latency_s * 1e3 for each in asked], 99) if asked else 0.0


def _send(server: EmbeddedServer, seed: int, count: int, rate_per_s: float, kind: str, report: RequestsReport) -> None:
    command = [sys.executable, "-m", "tests.server.malformed.sender", f"--seed={seed}", f"--count={count}"]
    command += [f"--http-url={server.http_url}", f"--grpc-url={server.grpc_url}", f"--rate={rate_per_s}"]
    command += ["--broken-share=0"] if kind == "right" else []
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    report.sent += answer["sent"]
    report.outcomes.update(answer["outcomes"])
    report.faults += answer["faults"]
    report.slowest_s = max(report.slowest_s, answer["slowest_s"])


def broken_models(server: EmbeddedServer, repository: Path, seed: int, count: int, at_once: int = 4) -> Account:
    """Load that many on the server."""
    return Loader(server, repository, at_once).load(folders(seed, count))


def broken_models_in_process(seed: int, count: int) -> Account:
    """Take that many through what Triton calls at a load, without a server; model files that nobody checked before are
    for a process of their own, and calls with a configuration for a server.
    """
    account = Account()
    logging.disable(logging.WARNING)
    try:
        with entry_point() as module, tempfile.TemporaryDirectory() as place:
            for number, folder in enumerate(folders(seed, count)):
                if folder.what == "model file" or folder.override is not None:
                    continue
                model = Path(place) / f"broken-{number}"
                model.mkdir()
                began_s = time.monotonic()
                try:
                    said = said_of(module, model, folder)
                    wrong = fault(folder, said)
                except Exception as error:
                    said, wrong = "", f"a bug: {error!r}"
                account.note(folder, said, wrong, time.monotonic() - began_s)
    finally:
        logging.disable(logging.NOTSET)
    return account


def held(server: EmbeddedServer) -> dict[str, tuple[int, int]]:
    """Descriptors and threads of the server, the scheduler and each model's process."""
    scheduler = int((server.runtime_dir / "cpu.lock").read_text())
    pids = {"tritonserver": server.pid, "scheduler": scheduler, **server.stub_pids()}
    return {name: (_entries(pid, "fd"), _entries(pid, "task")) for name, pid in pids.items()}


def _entries(pid: int, folder: str) -> int:
    return len(list(Path(f"/proc/{pid}/{folder}").iterdir()))


def grown(server: EmbeddedServer, before: dict[str, tuple[int, int]], slack: int = 4) -> dict[str, Any]:
    """Processes that hold more than before, or are gone, once connections that were closed are."""
    deadline = time.monotonic() + _SETTLED_S
    while True:
        after = held(server)
        found = {
            name: (was, after.get(name))
            for name, was in before.items()
            if name not in after or any(now > old + slack for now, old in zip(after[name], was, strict=True))
        }
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)
