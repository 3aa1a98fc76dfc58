"""Growth of tritonserver by each part of a soak's load: `python -m benchmarks.soak.parts`, one at a time, in turns.

A leak grows as much in the last turn as in the first.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from backend.server.embedded import EmbeddedServer
from benchmarks.harness import markdown
from benchmarks.harness.command import interrupt_on_term, one_sentence_errors
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.machine import versions
from benchmarks.harness.servers import temporary_server
from benchmarks.soak.mixed_load import PARTS, MixedLoad
from benchmarks.soak.models import soak_models
from benchmarks.soak.plan import SoakPlan
from benchmarks.soak.processes import read
from benchmarks.soak.reloads import Reloads
from benchmarks.soak.soak import LARGE_BLOCKS, OPTIONS, load_all
from benchmarks.soak.tally import Tally
from profiler.host import cpu_name

_PLAN = SoakPlan(0.0, 0.0, pause_s=0.01, bursts_s=0.2, reloads_s=0.1)
"""Without pauses, almost: each part has the server to itself."""
_SETTLE_S = 1.0


class Parts:
    """A soak's models on a server, and by how much tritonserver grew; `write` the repository, then `load`."""

    def __init__(self) -> None:
        self._models = soak_models(_PLAN.large_mb)
        self._tally = Tally()
        self.grown_mb: dict[str, list[float]] = {part: [] for part in PARTS}
        """Of tritonserver's private memory, by turn."""

    def write(self, repository: Path) -> None:
        """Fill the repository."""
        self._repository = repository
        for model in self._models:
            model.write(repository)

    def load(self, server: EmbeddedServer) -> None:
        """Load the models on the server of that repository."""
        load_all(server, self._repository, self._models)
        named = {model.name: model for model in self._models}
        self._server = server
        self._reloads = Reloads(server, self._repository, named["reloaded"], named["comes_and_goes"], _PLAN.reloads_s)

    @property
    def size_mb(self) -> float:
        """Private memory of tritonserver."""
        return next(found.anonymous_kb for found in read(self._server, 0.0) if found.role == "tritonserver") / 1e3

    @property
    def done(self) -> int:
        """Requests and reloads so far."""
        return sum(sum(outcomes.values()) for outcomes in self._tally.counts().values()) + self._reloads.count

    def run(self, part: str, seconds: float) -> str:
        """Run one part alone; a line of what it did. Raises BenchmarkError where a client broke off."""
        before_mb, before = self.size_mb, self.done
        with MixedLoad(self._server, self._models, _PLAN, self._tally, self._reloads, only=part) as load:
            time.sleep(seconds)
        if load.errors:
            raise BenchmarkError("; ".join(load.errors))
        time.sleep(_SETTLE_S)
        self.grown_mb[part].append(self.size_mb - before_mb)
        return f"{part}: {self.done - before} done, {self.size_mb:.1f} MB ({self.grown_mb[part][-1]:+.2f})"


def main(
    turns: Annotated[int, typer.Option(min=1, help="Of all parts.")] = 4,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each part in a turn.")] = 6.0,
) -> None:
    """Run each part of a soak's load by itself, and print by how much tritonserver grew each time."""
    interrupt_on_term()
    parts = Parts()
    with one_sentence_errors("soak"), temporary_server(parts.write, env=LARGE_BLOCKS, extra=OPTIONS) as server:
        parts.load(server)
        for _ in range(turns):
            for part in PARTS:
                print(parts.run(part, seconds), flush=True)
        rows = [[part, *(f"{grown:+.2f}" for grown in by_turn)] for part, by_turn in parts.grown_mb.items()]
        print(markdown.table(["part", *(f"turn {turn + 1}, MB" for turn in range(turns))], rows))
        print(f"{parts.size_mb:.1f} MB private at the end. {cpu_name()}; {versions('onnxruntime', 'tritonclient')}.")


if __name__ == "__main__":
    typer.run(main)
