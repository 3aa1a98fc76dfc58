"""Cost of loading a model for those that serve meanwhile: `python -m benchmarks.load_interference`.

Three models are served open loop; then a fourth, of some 100 MB, is loaded by the repository API, and profiled. The
same arrivals come twice in a run, with the load and without it, by turns first; compared is what arrived meanwhile.
Under this backend, under another checkout of it where one is named, and under a blocking Python backend with the same
ONNX Runtime, by turns.
"""

from __future__ import annotations

import os
import shutil
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from tritonclient import grpc as triton

from backend.linux.cpu_topology import cores
from backend.load.arrivals import Arrival, Traffic, poisson
from backend.load.generator import Payloads, run_load
from backend.load.inputs import server_payloads, solo_ms
from backend.load.outcomes import Outcome, first_error, summarise
from backend.progress_bar import console
from backend.server.assemble import CODE
from backend.server.embedded import EmbeddedServer
from backend.server.paths import short_temporary_folder
from benchmarks.harness import markdown
from benchmarks.harness.calibration import capacity_per_s
from benchmarks.harness.command import interrupt_on_term, one_sentence_errors
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.loads import expect_answers
from benchmarks.harness.servers import READY_TIMEOUT_S
from benchmarks.models.blocking_backend import write_stock
from benchmarks.models.model_repository import MAX_BATCH_SIZE, write_config
from benchmarks.models.sized_model import depth_for, sized_model
from profiler.host import cpu_name

OURS, BEFORE, STOCK = "isochrone", "before", "stock Triton"
SOLO_MS = (8.0, 11.0, 14.0)
SLO_FACTOR = 4.0
_LAYER_BYTES = 4 * 384 * 384
_LEAD_S = 2.0
_LOAD_TIMEOUT_S = 300.0
_ATTEMPTS = 5
"""At a load that leaves nothing to compare, with twice the arrivals each time."""


@dataclass(frozen=True)
class LoadingPlan:
    """repeats: of each kind. seconds: of arrivals that come twice, more where a load leaves nothing of them to compare.

    load: share of the measured capacity. megabytes: of the weights of the model that is loaded.
    """

    repeats: int
    seconds: float
    load: float
    megabytes: float


@dataclass(frozen=True)
class Window:
    """Shares of deadlines kept, and p99 in ms, with the load and without; took_s: the load."""

    kept: float
    kept_without: float
    p99_ms: float
    p99_without_ms: float
    requests: int
    took_s: float

    @property
    def drop(self) -> float:
        """Points of deadlines that the load cost."""
        return 100 * (self.kept_without - self.kept)


def window(outcomes: Sequence[Outcome], loaded_s: tuple[float, float], again_s: float, cut_s: float) -> Window | None:
    """Compare what arrived during the load with the same arrivals `again_s` later, or earlier if below 0.

    loaded_s: begin and end of the load; cut_s: where the arrivals end that come twice. What a longer load disturbs of
    those that come without it is left out on both sides; None where that leaves nothing.
    """
    more_s = max(0.0, loaded_s[1] - cut_s) if again_s > 0.0 else 0.0
    begin_s, end_s = loaded_s[0] + more_s, min(loaded_s[1], cut_s)

    def between(shift_s: float) -> list[Outcome]:
        return [o for o in outcomes if begin_s + shift_s <= o.intended_s < end_s + shift_s]

    with_it, without = between(0.0), between(again_s)
    if not with_it or not without:
        return None
    beside, alone = summarise(with_it, end_s - begin_s), summarise(without, end_s - begin_s)
    took_s = loaded_s[1] - loaded_s[0]
    return Window(beside.met_share, alone.met_share, beside.p99_ms, alone.p99_ms, len(with_it), took_s)


def twice(traffic: Sequence[Traffic], seconds: float, seed: int) -> list[Arrival]:
    """Arrivals of a lead, then the same ones two times over."""
    lead = [replace(a, at_s=a.at_s) for a in poisson(traffic, _LEAD_S, seed + 10_000)]
    once = poisson(traffic, seconds, seed)
    return lead + [replace(a, at_s=_LEAD_S + turn * seconds + a.at_s) for turn in (0, 1) for a in once]


class _Loading(threading.Thread):
    """Loads a model at an instant of the plan; `ends`: (begin, end), in seconds since the plan began."""

    def __init__(self, url: str, model: str, at_s: float) -> None:
        super().__init__(daemon=True)
        self._url, self._model, self._at_s = url, model, at_s
        self.ends: tuple[float, float] | None = None
        self.error = ""

    def run(self) -> None:
        started_s = time.monotonic()
        try:
            with triton.InferenceServerClient(self._url) as client:
                client.is_server_live()
                time.sleep(max(0.0, started_s + self._at_s - time.monotonic()))
                begin_s = time.monotonic()
                client.load_model(self._model, client_timeout=_LOAD_TIMEOUT_S)
                self.ends = (begin_s - started_s, time.monotonic() - started_s)
        except Exception as error:  # told by the main thread
            self.error = str(error)


class LoadingComparison:
    """Servers of each kind, with three models that serve and one to be loaded per run."""

    def __init__(self, plan: LoadingPlan, checkouts: Mapping[str, Path | None], folder: Path) -> None:
        """checkouts: by kind, where its code lies; None: no code of this backend takes part."""
        self.plan, self._checkouts, self._folder = plan, checkouts, folder
        self.found: dict[str, list[Window]] = {kind: [] for kind in checkouts}
        self.traffic: list[Traffic] = []
        self.capacity_per_s = 0.0

    def run(self) -> None:
        self._write()
        serving = [f"a{i}" for i in range(len(SOLO_MS))]
        with ExitStack() as stack:
            servers = {kind: stack.enter_context(self._server(kind, serving)) for kind in self._checkouts}
            payloads = server_payloads(servers[OURS].grpc_url, serving)
            alone_ms = solo_ms(servers[OURS].grpc_url, payloads)
            self.capacity_per_s = capacity_per_s(servers[OURS].grpc_url, payloads, 4, 4.0)
            rate_per_s = self.plan.load * self.capacity_per_s / len(serving)
            self.traffic = [Traffic(model, rate_per_s, round(SLO_FACTOR * alone_ms[model], 1)) for model in serving]
            for server in servers.values():
                run_load(server.grpc_url, poisson(self.traffic, 4.0, 5), payloads)  # what is learned in serving
            for repeat in range(self.plan.repeats):
                kinds = list(servers)
                for kind in kinds[repeat % len(kinds) :] + kinds[: repeat % len(kinds)]:
                    self.found[kind].append(self._once(servers[kind], kind, repeat, payloads))

    def _once(self, server: EmbeddedServer, kind: str, repeat: int, payloads: Payloads) -> Window:
        """Measure a load, and where it outlasted the arrivals that of another model, with twice as many of them."""
        for attempt in range(_ATTEMPTS):
            model, seconds = f"b{repeat}-{attempt}", self.plan.seconds * 2**attempt
            self._write_large(model)
            try:
                found = self._attempt(server, model, seconds, repeat, payloads)
            except BenchmarkError as error:
                raise BenchmarkError(f"{kind}: {error}") from None
            if found is not None:
                return found
        raise BenchmarkError(f"{kind}: a load outlasts {seconds:g} s of arrivals; try more --seconds")

    def _attempt(
        self, server: EmbeddedServer, model: str, seconds: float, repeat: int, payloads: Payloads
    ) -> Window | None:
        first = repeat % 2  # the load comes by turns in the first half and in the second
        at_s = _LEAD_S + first * seconds
        loading = _Loading(server.grpc_url, model, at_s)
        loading.start()
        outcomes = expect_answers(run_load(server.grpc_url, twice(self.traffic, seconds, repeat), payloads))
        loading.join(_LOAD_TIMEOUT_S)
        if loading.ends is None:
            raise BenchmarkError(f"model '{model}' was not loaded: {loading.error or 'no answer'}")
        if (told := first_error(outcomes)) is not None:
            raise BenchmarkError(f"a request failed beside the load: {told}")
        self._ask(server, model)
        _unload(server, model)
        return window(outcomes, loading.ends, seconds if first == 0 else -seconds, at_s + seconds)

    def _ask(self, server: EmbeddedServer, model: str) -> None:
        """Ask the loaded model: an answer shows that it serves."""
        payload = server_payloads(server.grpc_url, [model])[model]
        with triton.InferenceServerClient(server.grpc_url) as client:
            client.infer(model, payload, client_timeout=_LOAD_TIMEOUT_S)

    def _write(self) -> None:
        small = [sized_model(depth_for(ms)).SerializeToString() for ms in SOLO_MS]
        for i, content in enumerate(small):
            self._write_model(f"a{i}", content)
        for repeat in range(self.plan.repeats):
            self._write_large(f"b{repeat}-0")

    def _write_large(self, name: str) -> None:
        """Write a model to be loaded, for every kind of server, unless it is there."""
        if any(self._model_folder(kind, name).exists() for kind in self._checkouts):
            return
        large = sized_model(max(1, round(self.plan.megabytes * 1e6 / _LAYER_BYTES)))
        large.doc_string = name  # a file of its own: nothing is remembered of another load
        self._write_model(name, large.SerializeToString())

    def _repository(self, kind: str) -> Path:
        return self._folder / kind.replace(" ", "-")

    def _model_folder(self, kind: str, name: str) -> Path:
        return self._repository(kind) / name

    def _write_model(self, name: str, content: bytes) -> None:
        written: Path | None = None
        for kind, checkout in self._checkouts.items():
            folder = self._model_folder(kind, name)
            (folder / "1").mkdir(parents=True)
            file = folder / "1" / "model.onnx"
            if written is None:
                file.write_bytes(content)
                written = file
            else:
                file.hardlink_to(written)
            if checkout is None:
                write_stock(folder, MAX_BATCH_SIZE, len(cores()))
            else:
                write_config(folder, {})
                if name.startswith("b"):  # the check of batching takes part in what is measured
                    (folder / "config.pbtxt").write_text('backend: "isochrone"\n')

    @contextmanager
    def _server(self, kind: str, serving: Sequence[str]) -> Iterator[EmbeddedServer]:
        checkout = self._checkouts[kind]
        extra = ["--model-control-mode=explicit", *(f"--load-model={model}" for model in serving)]
        repository = self._repository(kind)
        with EmbeddedServer(
            repository, extra=extra, ready_timeout_s=READY_TIMEOUT_S, code=CODE if checkout is None else checkout
        ) as server:
            yield server

    def table(self) -> str:
        """Mean and range over the repeats."""
        rows = [
            (
                kind,
                _mean([100 * w.kept_without for w in found], 1),
                _mean([100 * w.kept for w in found], 1),
                _mean([w.drop for w in found], 1),
                _mean([w.p99_without_ms for w in found], 0),
                _mean([w.p99_ms for w in found], 0),
                _mean([w.took_s for w in found], 1),
            )
            for kind, found in self.found.items()
            if found
        ]
        return markdown.table(
            " | kept without, % | kept beside the load, % | points lost | p99 without, ms | p99 beside, ms | load, s",
            rows,
        )

    def conditions(self) -> str:
        """Tell what the figures depend on."""
        slos = ", ".join(f"{t.slo_ms:g}" for t in self.traffic)
        rate_per_s = sum(t.rate_per_s for t in self.traffic)
        requests = [w.requests for found in self.found.values() for w in found]
        return (
            f"{cpu_name()}, {len(cores())} cores shared with the load generator, load average "
            f"{os.getloadavg()[0]:.1f}; {rate_per_s:.0f} requests/s, {self.plan.load:g} of the measured "
            f"{self.capacity_per_s:.0f}/s; deadlines {slos} ms; {self.plan.megabytes:g} MB of weights; "
            f"{self.plan.repeats} repeats by turns, {min(requests)} to {max(requests)} requests beside a load; "
            "mean (least to most)"
        )


def _mean(values: Sequence[float], digits: int) -> str:
    return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _unload(server: EmbeddedServer, model: str) -> None:
    with triton.InferenceServerClient(server.grpc_url) as client:
        client.unload_model(model, client_timeout=_LOAD_TIMEOUT_S)
        until_s = time.monotonic() + _LOAD_TIMEOUT_S
        while client.is_model_ready(model) and time.monotonic() < until_s:
            time.sleep(0.05)


def main(
    repeats: Annotated[int, typer.Option(min=1, help="Of each kind of server.")] = 3,
    seconds: Annotated[
        float, typer.Option(min=1, help="Arrivals that come twice; more where a load takes longer.")
    ] = 14.0,
    load: Annotated[float, typer.Option(min=0.05, max=2, help="Share of the measured capacity.")] = 0.7,
    megabytes: Annotated[float, typer.Option(min=1, help="Weights of the model that is loaded.")] = 100.0,
    before: Annotated[Path | None, typer.Option(help="Another checkout, such as a git worktree.")] = None,
) -> None:
    """Compare deadlines kept and p99 beside a model's load with those without it."""
    interrupt_on_term()
    out: Any = console()
    checkouts: dict[str, Path | None] = {OURS: CODE}
    if before is not None:
        checkouts[BEFORE] = before.absolute()
    checkouts[STOCK] = None
    folder = short_temporary_folder()
    found = LoadingComparison(LoadingPlan(repeats, seconds, load, megabytes), checkouts, folder)
    try:
        with one_sentence_errors("load_interference", kept="what was measured is above"):
            found.run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if any(found.found.values()):
            out.print(found.table(), highlight=False, markup=False, soft_wrap=True)
            out.print(found.conditions(), highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
