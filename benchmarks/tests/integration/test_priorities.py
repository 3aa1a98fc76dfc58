"""What lower classes cost class 1 on the emulated GPU, in little."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import typer

from benchmarks.emulated.priorities import OURS, RESERVE, ROWS, LaneFigures, main
from benchmarks.gpu_emulated.plan import REFUSED


def short(out: Path, policies: str = ";".join(ROWS)) -> None:
    main(out, draws="0-0", lanes="2,12", loads="1.0", policies=policies, seconds=0.3, warm_s=0.1)


def test_every_policy_is_run_once_and_what_is_known_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "priorities.json"
    short(out)
    first = out.read_bytes()
    found = msgspec.json.decode(first, type=list[LaneFigures])
    assert sorted((k.lanes, k.policy) for k in found) == sorted((n, policy) for n in (2, 12) for policy in ROWS)
    assert {k.policy for k in found if k.by_class["2"] == 0.0} >= {REFUSED}
    assert all(k.by_class["2"] > 0.0 for k in found if k.policy in (OURS, RESERVE) and k.lanes == 12)
    short(out)
    assert out.read_bytes() == first
    text = capsys.readouterr().out
    assert text.startswith("EMULATED")
    assert text.count(f"  {REFUSED}") == 4, "a line per number of lanes, each time"
    assert text.count(f"class 2, {OURS} less {RESERVE}: ") == 4


def test_one_class_has_no_other_to_cost_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "priorities.json"
    main(out, draws="3-3", classes=1, lanes="2", loads="1.0", policies=OURS, seconds=0.3, warm_s=0.1)
    (only,) = msgspec.json.decode(out.read_bytes(), type=list[LaneFigures])
    assert (only.draw, only.classes, only.by_class) == (3, 1, {"1": only.all})
    assert "class 1, " not in capsys.readouterr().out


def test_draws_are_a_range(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="--draws is '3', but has to be two numbers, such as 0-19"):
        main(tmp_path / "out.json", draws="3")


def test_an_unknown_policy_is_named(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="--policies has 'nobody', but knows only isochrone"):
        short(tmp_path / "out.json", "nobody")
