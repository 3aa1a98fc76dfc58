"""Records of the comparison of routers, a file per part and seed, so that an interrupted one goes on."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from benchmarks.fleet.parts import parts
from benchmarks.fleet.plan import FleetPlan
from benchmarks.fleet.runs import FleetFigures
from benchmarks.harness.machine import version_facts
from benchmarks.harness.parts import Part, record_file
from benchmarks.harness.records import RecordFolder, RunManifest

_ROOT = Path(__file__).resolve().parents[2]
_CODE = (
    *("backend/fleet", "backend/scheduler", "backend/simulation", "backend/engines/emulated", "backend/load"),
    *("predictor", "benchmarks/fleet"),
)
"""Folders that figures depend on: the same code gives the same figures."""


class FleetRecords(RecordFolder[FleetPlan]):
    """Records of `plan`, in `folder`."""

    @property
    def manifest(self) -> RunManifest:
        return RunManifest(self.plan, facts={"code": _code_digest(), **version_facts("numpy")})

    @property
    def parts(self) -> tuple[Part, ...]:
        return parts(self.plan)

    def of(self, part: str) -> list[FleetFigures]:
        """All records of a part."""
        seeds = next(each.draws for each in self.parts if each.name == part)
        found = [self.read(record_file(part, seed), list[FleetFigures]) for seed in range(seeds)]
        return [figures for of_seed in found if of_seed for figures in of_seed]


@cache
def _code_digest() -> str:
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(path for folder in _CODE for path in (_ROOT / folder).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
