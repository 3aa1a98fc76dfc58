"""What a config.pbtxt states, where Triton's own reading of it cannot tell: 0 and nothing look the same there."""

from __future__ import annotations

import re
from pathlib import Path

_TOKEN = re.compile(r"""\#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[{}<>\[\]]|[\w.+-]+|\S""")


def states_max_batch_size(config_file: Path) -> bool:
    """Whether the file has a `max_batch_size` of the model's own, whatever its value. False where it cannot be read.

    Tokens of protobuf's text format: comments, strings and nested messages are told apart.
    """
    try:
        text = config_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    depth = 0
    for token in _TOKEN.findall(text):
        if token in "{<[":
            depth += 1
        elif token in "}>]":
            depth -= 1
        elif depth == 0 and token == "max_batch_size":
            return True
    return False
