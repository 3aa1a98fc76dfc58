"""Every target on its corpus and on mutations of it, always the same; `make fuzz` goes on from there."""

from __future__ import annotations

import importlib
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.mutation import FORMATS, mutated

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
TARGETS = sorted(path.stem for path in (HERE / "targets").glob("*.py") if path.stem != "__init__")
_MUTATIONS = 300


def corpus_of(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize("target", TARGETS)
def test_only_documented_errors_pass(target: str) -> None:
    module = importlib.import_module(f"tests.fuzz.targets.{target}")
    seeds = corpus_of(target)
    assert seeds
    assert module.FORMAT in FORMATS
    random = Random(1)
    for data in seeds:
        module.check(data)
    for _ in range(_MUTATIONS):
        data = mutated(random.choice(seeds), random, module.FORMAT, random.choice(seeds))
        try:
            module.check(data)
        except Exception as error:
            error.add_note(f"input: {data!r}"[:4000])
            raise


def test_the_corpora_are_small_and_each_has_a_target() -> None:
    assert sorted(path.name for path in CORPUS.iterdir()) == TARGETS
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 1 << 17
