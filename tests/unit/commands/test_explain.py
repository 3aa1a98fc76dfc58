"""`isochrone explain`: what it prints of a whole log, of lists, of one request; and sentences for what cannot be."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from backend.commands import main as cli
from backend.scheduler_process.request_index import RequestIndex
from tests.fakes.recorded import Recorded

Run = Callable[..., str]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("log") / "events"
    with Recorded(path, seed=3) as recorded:
        recorded.run(3_000)
    yield path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def ran(*options: object) -> str:
        """Returns the printed text; of a failure, the sentence."""
        monkeypatch.setattr("sys.argv", ["isochrone", "explain", *map(str, options)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return printed.out if ended.value.code in (0, None) else printed.err

    return ran


def test_without_options_it_shows_counts_and_the_latest_requests(log: Path, run: Run) -> None:
    index, text = RequestIndex(log), run(log)
    assert "device cpu, 4 lanes" in text
    for model, counts in index.models.items():
        assert re.search(
            rf"^ {model} +{counts.requests:,} +{counts.launched:,} +{counts.batches:,} ", text, re.MULTILINE
        )
    worst = max(index.requests, key=lambda r: r.late_ns or 0)
    assert worst.number in text
    assert f"{(worst.late_ns or 0) / 1e6:.2f}" in text


def test_json_has_the_same_numbers(log: Path, run: Run) -> None:
    index, found = RequestIndex(log), json.loads(run(log, "--json"))
    assert {m: c["requests"] for m, c in found["models"].items()} == {m: c.requests for m, c in index.models.items()}
    assert len(found["worst"]) == 10
    late = [row["late_ms"] for row in found["worst"]]
    assert late == sorted(late, reverse=True)
    number = found["worst"][0]["number"]
    one = json.loads(run(log, "--request", number, "--json"))
    assert one["number"] == number
    assert one["finished"]["late_ns"] / 1e6 == late[0]
    assert one["launched"]["predicted_ns"] > 0


@pytest.mark.parametrize("form", ["unix", "iso", "time of day"])
def test_requests_around_a_time_are_listed_with_their_numbers(log: Path, run: Run, form: str) -> None:
    record = RequestIndex(log).requests[1_000]
    at_s = (record.request.arrival_ns + record.clock_ns) / 1e9
    moment = datetime.fromtimestamp(at_s)
    at = {"unix": f"{at_s:.6f}", "iso": moment.isoformat(), "time of day": moment.time().isoformat()}[form]
    text = run(log, "--model", record.model, "--at", at)
    assert re.search(rf"^ {re.escape(record.number)} +{record.model} ", text, re.MULTILINE)
    assert len(re.findall(rf"^ \d+\.\d+ +{record.model} ", text, re.MULTILINE)) == 20
    assert record.number in run(log, "--at", at)


def test_a_request_is_found_by_its_id_where_one_model_has_it(log: Path, run: Run) -> None:
    record = RequestIndex(log).requests[50]
    assert run(log, "--request", record.request.id).startswith(f"request {record.number} of model '{record.model}'")
    assert run(log, "--request", record.number, "--model", record.model).startswith(f"request {record.number} ")


def test_an_id_of_several_models_is_asked_back(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "events"
    with Recorded(path) as recorded:
        recorded.run(30)
        first, second = list(recorded.core.sources)[:2]
        same = recorded.request(50.0)
        recorded.arrive(first, same)
        recorded.arrive(second, same)
    assert f"is several models' request: say which of {first}.{same.id} (m{first}), " in run(path, "--request", same.id)


def test_of_equal_numbers_the_last_is_explained_or_the_one_at_that_time(tmp_path: Path, run: Run) -> None:
    """Numbers begin anew with each scheduler's process."""
    path = tmp_path / "events"
    for slo_ms in (50.0, 70.0):
        with Recorded(path, started_ns=round(slo_ms)) as recorded:
            recorded.run(20)
            source = min(recorded.core.sources)
            recorded._ids = 10_000
            recorded.arrive(source, recorded.request(slo_ms))
        time.sleep(0.2)
    number = f"{source}.10001"
    index = RequestIndex(path)
    assert [why for _, why in index.gaps] == ["another scheduler's process began there"]
    first, _ = (r for r in index.requests if r.number == number)
    assert "deadline 70.00 ms later" in run(path, "--request", number)
    at_s = (first.request.arrival_ns + first.clock_ns) / 1e9
    assert "deadline 50.00 ms later" in run(path, "--request", number, "--at", at_s)


def test_a_request_before_what_the_log_kept_is_one_sentence(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "events"
    with Recorded(path, seed=3) as recorded:
        recorded.run(1_500)
        recorded.log.checkpoint(recorded.core, recorded.now_ns)
        recorded.run(1_500)
    lines = path.read_bytes().splitlines(keepends=True)
    second = [i for i, line in enumerate(lines) if b'"line":"checkpoint"' in line][1]
    early = next(r.number for r in RequestIndex(path).requests if r.outcome == "finished")
    path.write_bytes(b"".join(lines[second:]))
    sentence = run(path, "--request", early)
    assert f"request {early} is not in '{path}', which holds what was from " in sentence
    assert f"it lies before that, for that model's first request there is {early.split('.')[0]}." in sentence
    late = RequestIndex(path).requests[-1]
    assert run(path, "--request", late.number).startswith(f"request {late.number} of model")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--request", "99.1"), "request 99.1 is not in "),
        (("--request", "x"), "request x is not in "),
        (("--model", "nobody"), "model 'nobody' has no request in "),
        (("--at", "noon"), "2026-01-31T14:03:27 or seconds of Unix time, got 'noon'"),
        (("--at", "nan"), "--at must be a time such as"),
        (("--at", "1e300"), "--at must be a time such as"),
    ],
)  # fmt: skip
def test_what_cannot_be_explained_is_one_sentence(log: Path, run: Run, options: tuple[str, ...], sentence: str) -> None:
    printed = run(log, *options)
    assert printed.startswith("isochrone: ")
    assert sentence in printed
    assert printed.count("\n") == 1


def test_a_file_that_is_no_log_is_one_sentence(tmp_path: Path, run: Run) -> None:
    assert run(tmp_path / "none") == f"isochrone: '{tmp_path / 'none'}' cannot be read: there is no such file\n"
    (tmp_path / "other").write_text('{"schema":1}\n')
    assert f"isochrone: '{tmp_path / 'other'}' is no event log that can be replayed: other, line 1" in run(
        tmp_path / "other"
    )
