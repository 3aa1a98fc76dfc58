"""Records of the comparison on an emulated GPU, a file per part and draw, so that an interrupted one goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.gpu_emulated.parts import KINDS, LANES, parts
from benchmarks.gpu_emulated.plan import GpuPlan, Served
from benchmarks.gpu_emulated.runs import RunFigures
from benchmarks.gpu_emulated.served.turns import Turn, turn_file, turns
from benchmarks.harness.machine import version_facts
from benchmarks.harness.parts import Part, record_file
from benchmarks.harness.records import RecordFolder, RunManifest

_ROOT = Path(__file__).resolve().parents[2]
_CODE = (
    *("backend/scheduler", "backend/simulation", "backend/load", "predictor"),
    *("benchmarks/gpu_emulated", "benchmarks/emulated/draws.py", "benchmarks/harness/loads.py", "benchmarks/rivals.py"),
)
"""Files and folders that figures in virtual time depend on: the same code gives the same figures."""
_NOT_FIGURES = {"__main__", "collect", "figures", "gpu_emulated_report", "plots", "records", "section", "tables"}
"""Modules of theirs that only collect figures or write about them."""


class GpuRecords(RecordFolder[GpuPlan]):
    """Records of `plan`, in `folder`."""

    def __init__(self, plan: GpuPlan, folder: Path) -> None:
        super().__init__(plan, folder)
        self._best: dict[tuple[str, float], int] = {}

    @property
    def manifest(self) -> RunManifest:
        return RunManifest(self.plan, facts={"code": _code_digest(), **version_facts("numpy")})

    @property
    def parts(self) -> tuple[Part, ...]:
        return parts(self.plan, self.best_lanes)

    def of(self, part: str) -> list[Any]:
        """All records of a part, of its kind."""
        draws = next(p.draws for p in self.parts if p.name == part)
        found = [self.read(record_file(part, draw), KINDS[part]) for draw in range(draws)]
        return [figures for of_draw in found if of_draw for figures in of_draw]

    @property
    def served(self) -> Served:
        return self.plan.served

    def turns(self) -> list[Turn]:
        """Turns on a real server that are recorded."""
        found = [self.read(turn_file(*turn), Turn) for turn in turns(self.served)]
        return [turn for turn in found if turn is not None]

    def best_lanes(self, rival: str, load: float) -> int:
        """Number of lanes on which a rival keeps most deadlines at this load, of the first draws' mean."""
        if not self._best:
            runs: list[RunFigures] = self.of(LANES)
            for r in self.plan.everyone:
                for at in self.plan.loads:
                    self._best[r, at] = max(self.plan.lanes, key=lambda n, r=r, at=at: _mean_kept(runs, r, at, n))  # type: ignore[misc]
        return self._best[rival, load]


def _mean_kept(runs: Sequence[RunFigures], rival: str, load: float, lanes: int) -> float:
    return fmean(r.kept() for r in runs if (r.rival, r.load, r.lanes) == (rival, load, lanes))


@cache
def _code_digest() -> str:
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(path for name in _CODE for path in _python_files(_ROOT / name)):
        if path.stem not in _NOT_FIGURES:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _python_files(path: Path) -> list[Path]:
    return list(path.rglob("*.py")) if path.is_dir() else [path]
