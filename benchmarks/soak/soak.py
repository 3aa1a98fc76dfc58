"""One soak: a server, its load, two quiet moments, and what is left when it has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import tritonclient.grpc as triton_grpc

from backend.errors import IsochroneError
from backend.runtime_dir import VARIABLE
from backend.scheduler_process.event_log import VARIABLE as EVENTS
from backend.scheduler_process.sample_log import VARIABLE as SAMPLES
from backend.server.embedded import EmbeddedServer
from backend.server.processes import pids_with
from benchmarks.harness.servers import temporary_server
from benchmarks.soak.accounts import Account, accounts
from benchmarks.soak.growth import Growth, growths
from benchmarks.soak.mixed_load import MixedLoad
from benchmarks.soak.models import SoakModel, soak_models
from benchmarks.soak.plan import SLOPE_MAX_PERCENT, SoakPlan
from benchmarks.soak.processes import Reading, Sampler
from benchmarks.soak.quiet import QuietMoment, left_behind, left_over, quiet_moment
from benchmarks.soak.reloads import Reloads
from benchmarks.soak.tally import Tally
from tests.server.control import remember_profile

_LOOK_S = 0.2
_LOADS_AT_ONCE = 2
OPTIONS = (
    *("--model-control-mode=explicit", f"--model-load-thread-count={_LOADS_AT_ONCE}"),
    "--grpc-infer-allocation-pool-size=0",
)
LARGE_BLOCKS = {"MALLOC_MMAP_THRESHOLD_": str(4 << 20)}
"""glibc gives blocks from here on back as they are freed. So, and without Triton's pool of the last answers,
tritonserver's size says what is in use, not which answers it still has; those make it 80 to 290 MB by chance."""
_UNLOADED = frozenset({"comes_and_goes"})


@dataclass
class SoakResult:
    """Findings. wrong: a sentence for each bound that is broken."""

    plan: SoakPlan
    readings: list[Reading] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    loads: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def load_all(server: EmbeddedServer, repository: Path, models: Sequence[SoakModel]) -> None:
    """Load the models without profiling them."""
    with triton_grpc.InferenceServerClient(server.grpc_url) as client:
        for model in models:
            remember_profile(server, repository / model.name, model.solo_ms, model.max_batch_size)
        with ThreadPoolExecutor(_LOADS_AT_ONCE) as pool:
            list(pool.map(client.load_model, [model.name for model in models]))


class Soak:
    """Run of a plan. tell: called now and then with the result so far; folder: of the server's logs."""

    def __init__(self, plan: SoakPlan, folder: Path, tell: Callable[[SoakResult], None], tell_every_s: float) -> None:
        self._plan, self._folder, self._tell, self._tell_every_s = plan, folder, tell, tell_every_s
        self._models = soak_models(plan.large_mb)
        self._tally = Tally()
        self._result = SoakResult(plan)

    def run(self) -> SoakResult:
        """Raises ServerError where no server starts. The server is ended in any case."""
        log = self._folder / "tritonserver.log"
        env = {
            SAMPLES: str(self._folder / "samples.jsonl"),
            EVENTS: str(self._folder / "events.jsonl"),
            **LARGE_BLOCKS,
        }
        with temporary_server(self._write, env=env, extra=OPTIONS, log=log) as server:
            runtime_dir, prefix = str(server.runtime_dir), server.shared_memory_prefix
            try:
                self._serve(server)
            except IsochroneError as error:  # it crashed; the report says that, and what was found until then
                self._result.wrong.append(str(error))
            pids = [server.pid, *pids_with(VARIABLE, runtime_dir)]
            if (code := server.stop()) != 0:
                self._result.wrong.append(f"tritonserver ended with exit code {code}")
        self._result.wrong += left_behind(pids, prefix)
        if "Traceback" in (said := log.read_text(errors="replace")):
            self._result.wrong.append(f"'{log}' has {said.count('Traceback')} tracebacks")
        return self._result

    def _write(self, repository: Path) -> None:
        self._repository = repository
        for model in self._models:
            model.write(repository)

    def _serve(self, server: EmbeddedServer) -> None:
        load_all(server, self._repository, self._models)
        named = {model.name: model for model in self._models}
        reloads = Reloads(server, self._repository, named["reloaded"], named["comes_and_goes"], self._plan.reloads_s)
        with Sampler(server, self._plan.sample_s, self._result.readings.extend) as sampler:
            self._load(server, reloads, self._plan.warm_up_s, sampler)
            before = quiet_moment(server, sampler.now_s, self._agrees)
            from_s = sampler.now_s
            self._load(server, reloads, self._plan.watched_s, sampler)
            busy_until_s = sampler.now_s
            after = quiet_moment(server, sampler.now_s, self._agrees)
        self._judge(before, after, from_s, busy_until_s)

    def _load(self, server: EmbeddedServer, reloads: Reloads, seconds: float, sampler: Sampler) -> None:
        """Runs all clients for so long."""
        until_s, told_s = time.monotonic() + seconds, time.monotonic()
        with MixedLoad(server, self._models, self._plan, self._tally, reloads) as load:
            while (now_s := time.monotonic()) < until_s and not load.errors:
                if now_s - told_s >= self._tell_every_s:
                    told_s = now_s
                    self._tell(self._so_far(sampler, reloads))
                time.sleep(_LOOK_S)
        self._result.wrong += load.errors
        self._result.loads, self._result.seconds = reloads.count, sampler.now_s

    def _agrees(self, metrics: str) -> bool:
        return not any(found.wrong for found in accounts(self._tally.counts(), metrics, _UNLOADED))

    def _so_far(self, sampler: Sampler, reloads: Reloads) -> SoakResult:
        readings = list(self._result.readings)
        return SoakResult(
            self._plan,
            readings,
            growths(readings, self._plan.warm_up_s),
            accounts(self._tally.counts(), ""),
            reloads.count,
            sampler.now_s,
        )

    def _judge(self, before: QuietMoment, after: QuietMoment, from_s: float, until_s: float) -> None:
        result = self._result
        result.growths = growths([r for r in result.readings if r.at_s <= until_s], from_s)
        result.accounts = accounts(self._tally.counts(), after.metrics, _UNLOADED)
        result.wrong += left_over(before, after)
        for found in result.accounts:
            result.wrong += [f"model '{found.model}': {sentence}" for sentence in found.wrong]
        result.wrong += [
            f"{growth.role} ({growth.pid}) grows by {growth.percent:.2f} % per ten minutes; "
            f"less than {SLOPE_MAX_PERCENT} % is allowed"
            for growth in result.growths
            if growth.grows
        ]
