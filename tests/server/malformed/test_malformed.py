"""A sample of broken requests and models, always the same; `python -m tests.server.malformed` has any number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.server.embedded import EmbeddedServer
from tests.server.control import metric
from tests.server.malformed.campaign import (
    broken_models,
    broken_models_in_process,
    broken_requests,
    grown,
    held,
    serving,
)

P99_RATIO_MAX = 1.2


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[EmbeddedServer]:
    with serving(repository) as server:
        yield server
    assert server.stop() == 0
    log = server.log_text()
    assert "Traceback" not in log
    assert "the request could not be" not in log  # how a bug begins in our own sentences


def test_each_broken_request_is_answered_and_good_traffic_goes_on(server: EmbeddedServer) -> None:
    processes = {"tritonserver": server.pid, **server.stub_pids()}
    report = broken_requests(server, seed=1, count=300)
    assert report.faults == []
    assert report.sent == 300
    assert report.good > 0
    assert report.good_wrong == 0
    assert {"tritonserver": server.pid, **server.stub_pids()} == processes
    assert metric(server, "isochrone_fail_open_total") == 0


def test_each_broken_model_is_refused_in_a_sentence_and_others_serve_on(
    server: EmbeddedServer, repository: Path
) -> None:
    account = broken_models(server, repository, seed=3, count=15)
    assert account.faults == []
    assert account.loaded == 15
    assert broken_requests(server, seed=2, count=10).good_wrong == 0


def test_each_broken_model_is_refused_in_a_sentence_by_the_checks_of_a_load() -> None:
    account = broken_models_in_process(seed=1, count=60)
    assert account.faults == []
    assert account.loaded > 45


@pytest.mark.slow
@pytest.mark.alone
def test_ten_thousand_broken_requests_leave_nothing_and_hold_up_nobody(server: EmbeddedServer) -> None:
    broken_requests(server, seed=10**6, count=300)
    processes, before = {"tritonserver": server.pid, **server.stub_pids()}, held(server)
    report = broken_requests(server, seed=1, count=10_000, windows=10)
    assert report.faults == []
    assert (report.sent, report.good_wrong) == (10_000, 0)
    assert {"tritonserver": server.pid, **server.stub_pids()} == processes
    assert grown(server, before) == {}
    in_all = report.p99_ms_in_all
    assert in_all["broken"] <= P99_RATIO_MAX * in_all["none"], (in_all, report.p99_ms)


@pytest.mark.slow
def test_two_thousand_broken_models(server: EmbeddedServer, repository: Path) -> None:
    account = broken_models(server, repository, seed=1, count=2_000)
    assert (account.loaded, account.faults) == (2_000, [])
    assert broken_models_in_process(seed=1, count=2_000).faults == []
    assert broken_requests(server, seed=2, count=10).good_wrong == 0
