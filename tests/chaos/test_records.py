"""A run of faults goes on from the file of an earlier one, if that was of the same kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.account import Sum
from tests.chaos.campaign import Campaign, Record
from tests.chaos.faults.fault import Fault, nothing_to_undo
from tests.chaos.records import Records, RecordsError, read_records


def record(kind: str) -> Record:
    return Record(kind, Sum(3, {"right": 2, "error": 1}, {"a limit": 1}, {}), 0.1, 100.0, None, False, 1)


def test_what_was_recorded_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    assert read_records(path, 0.5, 1.0) == Records(0.5, 1.0)
    written = Records(0.5, 1.0, [record("kill")], [300.0], ["fill: why"])
    written.write(path)
    assert read_records(path, 0.5, 1.0) == written


@pytest.mark.parametrize(("content", "says"), [(None, "--window-s 8 --hold 1, not of 0.5 and 1"), (b"{}", "window_s")])
def test_a_file_of_another_run_is_refused_in_a_sentence(content: bytes | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    if content is None:
        Records(8.0, 1.0).write(path)
    else:
        path.write_bytes(content)
    with pytest.raises(RecordsError, match=f"records.json' has .*{says}"):
        read_records(path, 0.5, 1.0)


def test_only_what_is_not_recorded_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [Fault(kind, lambda _: nothing_to_undo) for kind in ("kill", "stop")]
    campaign = Campaign(kinds, None, 0.5, 1.0, float("inf"), print, [record("kill"), record("kill"), record("stop")])
    done: list[str] = []

    def run(todo: list[Fault], *_: object) -> None:
        done.append(todo.pop(0).kind)

    monkeypatch.setattr(campaign, "_on_one_server", run)
    campaign.run(3)
    assert done == ["stop", "kill", "stop"]
