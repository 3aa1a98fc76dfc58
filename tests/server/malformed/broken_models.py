"""Seeded generator of broken models: a right one's folder with something wrong in one or two of its files."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tests.server.malformed.config_faults import CONFIG_FAULTS
from tests.server.malformed.file_faults import FILE_FAULTS, huge
from tests.server.malformed.model_folder import Folder, right_folder

_FAULTS = (*CONFIG_FAULTS, *FILE_FAULTS)


def folders(seed: int, count: int) -> Iterator[Folder]:
    """That many, always the same for a seed. A few are right, and must be served."""
    random = Random(seed)
    for number in range(count):
        wrong = huge if number % 500 == 250 else random.choice(_FAULTS)
        yield wrong(random) if number % 25 or number % 500 == 250 else right_folder(random)
