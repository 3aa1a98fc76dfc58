"""`python -m tests.fuzz TARGET --seconds N`: one target under atheris, from its corpus on, without end by default."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from random import Random

from tests.fuzz.mutation import BYTES_MAX, mutated
from tests.fuzz.test_fuzz import CORPUS, TARGETS


def main() -> None:
    """Exit status 77 where an error passed; what made it is in the folder that is named then."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz a target under atheris.")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=0, help="end after so long; 0: never")
    options = parser.parse_args()
    try:
        import atheris  # noqa: PLC0415 - an extra
    except ImportError:
        sys.exit("fuzzing under coverage needs atheris: pip install 'isochrone[fuzz]'")
    with atheris.instrument_imports(include=["backend", "predictor", "profiler"]):
        target = importlib.import_module(f"tests.fuzz.targets.{options.target}")

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.5:
            return bytes(atheris.Mutate(data, max_size))
        return mutated(data, random, target.FORMAT)[:max_size]

    found = tempfile.mkdtemp(prefix="iso-fuzz-")
    print(f"inputs of new coverage, and what fails, go to {found}")
    arguments = [sys.argv[0], found, str(CORPUS / options.target), f"-artifact_prefix={found}/failed-"]
    arguments += [f"-max_total_time={options.seconds}", f"-max_len={BYTES_MAX}", "-timeout=30", "-rss_limit_mb=3000"]
    atheris.Setup(arguments, target.check, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
