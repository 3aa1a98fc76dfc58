"""`isochrone report`: what it prints and writes of logs of both kinds, and sentences for what cannot be."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.commands import main as cli
from backend.load.arrivals import Traffic
from tests.fakes.simulated_log import SimulatedLog, model, write_logs

Run = Callable[..., str]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> SimulatedLog:
    models = [model("heavy", 40.0, 0.9), model("light", 5.0, 0.1), model("small", 4.0, 0.1)]
    traffic = [Traffic("heavy", 12.0, 400.0, 2), Traffic("light", 40.0, 15.0), Traffic("small", 40.0, 15.0)]
    return write_logs(tmp_path_factory.mktemp("log"), models, traffic, 6.0)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def ran(*options: object) -> str:
        """Returns the printed text; of a failure, the sentence."""
        monkeypatch.setattr("sys.argv", ["isochrone", "report", *map(str, options)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return printed.out if ended.value.code in (0, None) else printed.err

    return ran


def table(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose header begins with this cell."""
    lines = text[text.index(f"| {first} |") :].split("\n\n", maxsplit=1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_events_become_deadlines_causes_pairs_and_predictions(log: SimulatedLog, run: Run) -> None:
    text = run(log.events)
    assert re.findall(r"^#+ (.*)$", text, re.MULTILINE) == [
        "Report on events.jsonl",
        "In short",
        "Deadlines by model and class",
        "Why requests were late",
        "Who slows whom",
        "Predicted and measured",
    ]
    outcomes = log.ran.outcomes()
    for name, priority, requests, met, missed, *_ in table(text, "model | class"):
        mine = [o for o in outcomes if o.model == name]
        assert priority == ("2" if name == "heavy" else "1")
        assert (int(requests), int(met), int(missed)) == (
            len(mine),
            sum(o.met for o in mine),
            sum(not o.met for o in mine),
        )
    for name, _, _, *shares in table(text, "late requests of | number"):
        assert sum(map(float, shares)) == pytest.approx(100.0, abs=0.4), name
    costliest = [row[:2] for row in table(text, "batches of | slowed by")]
    assert ["light", "heavy"] in costliest[:3]
    assert "- heavy causes most lateness: " in text
    assert "It has a lower class already (2, light 1)" in text or "It has a lower class already (2, small 1)" in text


def test_samples_have_no_requests_and_the_head_says_so(log: SimulatedLog, run: Run) -> None:
    text = run(log.samples)
    assert "This is a samples file: it has batches, not requests." in text.split("\n## ")[0]
    assert "## Deadlines" not in text
    assert "- heavy slows the others down most: " in text
    assert [row[-1] for row in table(text, "model | batches")] == ["–"] * 3


def test_html_is_one_file_with_plots(log: SimulatedLog, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    text = run(log.events, "--html", out)
    assert text.startswith("# Report on events.jsonl\n")
    written = out.read_text()
    assert written.count('src="data:image/png;base64,iVBOR') == 2
    assert "heavy causes most lateness" in written


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty: events (ISOCHRONE_EVENTS) or samples (ISOCHRONE_SAMPLES) are wanted"),
        (b"hello\n", "line 1 is neither an event nor a sample"),
        (b"\x00\xff\n", "line 1 is neither an event nor a sample"),
        (b'{"line":"train"}\n', "is no event log that can be replayed: it has no checkpoint"),
        (b'{"line":"nonsense"}\n', "line 1 cannot be read"),
        (b'{"schema":1,"model":"m"}\n', "line 1 is not a sample"),
    ],
)  # fmt: skip
def test_what_is_no_log_is_one_sentence(run: Run, tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    printed = run(path)
    assert printed.startswith("isochrone: ")
    assert printed.count("\n") == 1
    assert sentence in printed


def test_a_broken_line_among_samples_is_named_by_its_number(log: SimulatedLog, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "samples"
    lines = log.samples.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:6], b'{"schema":1,\n', *lines[6:]]))
    assert f"{path}, line 7 is not a sample" in run(path)


def test_files_that_are_not_there_or_would_be_lost_are_one_sentence(
    log: SimulatedLog, run: Run, tmp_path: Path
) -> None:
    assert "cannot be read: No such file or directory" in run(tmp_path / "none")
    assert "holds the log; name another file" in run(log.events, "--html", log.events)
    assert "cannot be written" in run(log.events, "--html", tmp_path / "none" / "report.html")
