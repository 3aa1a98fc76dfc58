"""Loads broken models on a running server, and judges what it says of each."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from backend.server.embedded import EmbeddedServer
from tests.server.control import request
from tests.server.harness import mlp_answer
from tests.server.malformed.asked import MLP
from tests.server.malformed.model_folder import Folder

LOADED_WITHIN_S = 60.0
SENTENCE_CHARS_MAX = 700
X = np.array([[1, 2, 3, 4]], np.float32)
_OURS = re.compile(r"isochrone cannot load model '[^']*': (.*)", re.DOTALL)
_BUG = re.compile(r"Traceback|object at 0x|Error\(")
_PYBINDS = re.compile(r"\n\nAt:\n.*|;\n$", re.DOTALL)
"""What pybind11 and Triton add to the sentence of an exception."""


@dataclass
class Account:
    """What became of the models. faults: with what was there and what was said."""

    loaded: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    sentences: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def shown(self) -> dict[str, Any]:
        """As JSON; sentences only by their number."""
        kept = {key: value for key, value in vars(self).items() if key not in ("lock", "sentences")}
        return {**kept, "different sentences": len(self.sentences)}

    def note(self, folder: Folder, said: str, wrong: str | None, seconds: float) -> None:
        with self.lock:
            self.loaded += 1
            self.kinds[folder.what] += 1
            ours = "" if not said else " by this backend" if _OURS.search(said) else " by Triton"
            self.outcomes[("served" if not said else "refused") + ours] += 1
            self.sentences[re.sub(r"\d+|'/[^']*'", "#", said)[:300]] += 1
            self.slowest_s = max(self.slowest_s, seconds)
            if wrong:
                shown = {path: content[:600] for path, content in folder.files.items() if not path.endswith(".onnx")}
                self.faults.append(f"{wrong}: {folder.what}: {said[:1200]!r}; {shown} {folder.override or ''}")


def fault(folder: Folder, said: str) -> str | None:
    """What is wrong with a load's answer, empty where the model was loaded; None where it is as it must be."""
    if not said:
        return "loaded, but must be refused" if folder.outcome == "refused" else None
    if folder.outcome == "served":
        return "refused, but must be served"
    if _BUG.search(said):
        return "a bug in a sentence's place"
    ours = _OURS.search(said)
    if ours and len(ours[1]) > SENTENCE_CHARS_MAX:
        return f"a sentence of {len(ours[1])} characters"
    if ours and "\n" in ours[1].strip():
        return "a sentence of several lines"
    missing = [part for part in folder.says if part not in said]
    return f"the sentence lacks {missing}" if missing else None


class Loader:
    """Writes models into a running server's repository, and has them loaded."""

    def __init__(self, server: EmbeddedServer, repository: Path, at_once: int = 4) -> None:
        self._server, self._repository, self._at_once = server, repository, at_once
        self.account = Account()

    def load(self, broken: Iterator[Folder]) -> Account:
        """One after the other, some side by side."""
        with ThreadPoolExecutor(self._at_once) as pool:
            list(pool.map(self._one, enumerate(broken)))
        return self.account

    def _one(self, turn: tuple[int, Folder]) -> None:
        number, folder = turn
        name = f"broken-{number}"
        _write(self._repository / name, folder)
        began = time.monotonic()
        with closing(
            triton_http.InferenceServerClient(self._server.http_url, network_timeout=LOADED_WITHIN_S)
        ) as client:
            said, wrong = "", None
            try:
                client.load_model(name, config=folder.override)
            except InferenceServerException as error:
                said = _PYBINDS.sub("", str(error.message())) or " "
            except Exception as error:
                wrong = f"no answer to the load: {error!r}"
            wrong = wrong or fault(folder, said)
            if not said and not wrong:
                try:
                    wrong = _asked(client, name)
                except Exception as error:
                    wrong = f"no answer of the loaded model: {error!r}"
            self.account.note(folder, said, wrong, time.monotonic() - began)
            with suppress(Exception):  # it is not loaded
                client.unload_model(name)
        shutil.rmtree(self._repository / name)


def _write(place: Path, folder: Folder) -> None:
    place.mkdir()
    for path, content in folder.files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content)


def _asked(client: Any, name: str) -> str | None:
    """What is wrong with the answer of a model that was loaded all the same."""
    shape = client.get_model_config(name)["input"]
    if [(i["name"], i["data_type"], [int(d) for d in i["dims"]][-1:]) for i in shape] != [("x", "TYPE_FP32", [4])]:
        return None  # another model, if a model at all: what it computes is not known here
    try:
        result = client.infer(name, request(triton_http, {"x": X}))
    except InferenceServerException as error:
        return None if str(error.message()).strip() else "a request is refused without a sentence"
    y = result.as_numpy("y")
    if y is None or y.shape == (1, 2):
        return None  # an emulated one
    return None if np.allclose(y.reshape(1, -1), mlp_answer(MLP, X), rtol=1e-3, atol=1e-4) else f"it answers {y!r}"
