"""Loads and unloads of models under load: one is replaced in place, another one is gone for a while."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton_grpc

from backend.server.embedded import EmbeddedServer
from benchmarks.harness.errors import BenchmarkError
from benchmarks.soak.models import SoakModel

_GONE_WITHIN_S = 600.0
_SLO_MS = 1_000


class Reloads:
    """Replaces one model in place, and unloads and loads another one, by turns."""

    def __init__(
        self, server: EmbeddedServer, repository: Path, in_place: SoakModel, gone: SoakModel, pause_s: float
    ) -> None:
        self._server, self._repository, self._pause_s = server, repository, pause_s
        self._in_place, self._gone = in_place, gone
        self._random = np.random.default_rng(0)
        self.count = 0
        """Of each of the two, so far."""

    def run(self, stopping: threading.Event) -> None:
        """Returns with every model loaded."""
        with closing(triton_grpc.InferenceServerClient(self._server.grpc_url)) as client:
            while not stopping.wait(self._random.exponential(self._pause_s)):
                self.count += 1
                # Triton loads a model again only where its files have changed.
                self._in_place.write(self._repository, slo_ms=str(_SLO_MS + self.count))
                client.load_model(self._in_place.name)
                client.unload_model(self._gone.name)
                if self.count % 2:  # else the new process begins while the old one still ends
                    self._wait_until_gone(self._gone.name)
                client.load_model(self._gone.name)

    def _wait_until_gone(self, name: str) -> None:
        until_s = time.monotonic() + _GONE_WITHIN_S
        while name in self._server.stub_pids():
            if time.monotonic() > until_s:
                raise BenchmarkError(f"the process of model '{name}' is there {_GONE_WITHIN_S:g} s after its unload")
            time.sleep(0.05)
