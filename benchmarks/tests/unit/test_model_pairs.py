"""Two kinds of a model in turn: order, table, and what is left of an error; its real twin is in tests/server."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from benchmarks.harness import model_pairs
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.model_pairs import PairsPlan, compare
from benchmarks.harness.perf_analyzer import ClosedLoopFigures


class Client:
    """Known figures, which rise by 100 µs a call; an error from the call after `lasts` on."""

    def __init__(self, lasts: int = 1_000) -> None:
        self.called: list[tuple[str, int]] = []
        self._lasts = lasts

    def __call__(self, _url: str, model: str, concurrency: int, _seconds: float) -> ClosedLoopFigures:
        if len(self.called) == self._lasts:
            raise BenchmarkError(f"perf_analyzer on model '{model}' did not settle")
        self.called.append((model, concurrency))
        p50_us = (3e3 if model.startswith("ours") else 2e3) + 100 * len(self.called)
        return ClosedLoopFigures(1e6 * concurrency / p50_us, p50_us, p50_us)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_pairs, "temporary_server", lambda *_: nullcontext(SimpleNamespace(grpc_url="")))


def run(plan: PairsPlan) -> None:
    compare(plan, lambda _kind, _folder: None)


@pytest.mark.usefixtures("server")
def test_kinds_take_turns_and_are_compared_pair_by_pair(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Client()
    monkeypatch.setattr(model_pairs, "measure", client)
    run(PairsPlan(("ours", "stock"), (2.0,), (8,), 3, 1.0))
    ours, stock = ("ours_2ms", 8), ("stock_2ms", 8)
    assert client.called == [ours, stock, ours, stock, stock, ours, ours, stock]  # a warm-up and three pairs
    shown = capsys.readouterr().out
    assert "0.90 (0.90 to 1.10)" in shown
    assert "3 pairs of 1 s" in shown


@pytest.mark.usefixtures("server")
def test_rows_before_an_error_are_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(model_pairs, "measure", Client(lasts=6))
    with pytest.raises(BenchmarkError, match="did not settle"):
        run(PairsPlan(("ours", "stock"), (2.0,), (1, 8), 1, 1.0))
    shown = capsys.readouterr().out
    assert "2 ms, 1" in shown
    assert "2 ms, 8" not in shown
