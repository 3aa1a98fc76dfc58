"""The comparison on an emulated GPU in its quick form, one draw on a real server; the server is as in virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from backend.progress_bar import StageBar
from benchmarks.gpu_emulated.__main__ import main
from benchmarks.gpu_emulated.plan import OURS, QUICK, STOCK_SERVED, Served
from benchmarks.gpu_emulated.served.turns import take_turn, turn_file
from benchmarks.gpu_emulated.served.twin import twin_turn


def test_the_quick_form_writes_its_report_and_goes_on_where_it_was(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    folder, out = tmp_path / "records", tmp_path / "gpu-emulated.md"
    command = ["--quick", "--workers", "1", "--folder", str(folder), "--out", str(out)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    text = out.read_text()
    assert "**Emulated: no GPU took part.**" in text
    for rival in QUICK.rivals:
        assert text.count(f"| *{rival}* |") >= 5
    assert "best schedule found" in text
    for plot in ("loads", "lanes", "reference"):
        assert f"(gpu-emulated/{plot}.png)" in text
        assert (tmp_path / "gpu-emulated" / f"{plot}.png").is_file()
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    (folder / "rates" / "0.json").unlink()
    (folder / turn_file(OURS, 0)).unlink()
    assert CliRunner().invoke(app, command).exit_code == 0
    before, after = (found.split("## On a real server") for found in (text, out.read_text()))
    assert after[0] == before[0]
    assert f"*{STOCK_SERVED}*" in after[1]
    assert ", 0 failed," in after[1]
    taken = {path for path in folder.rglob("*.json") if path.stat().st_mtime_ns != kept[path]}
    assert taken == {folder / "rates" / "0.json", folder / turn_file(OURS, 0)}
    other = CliRunner().invoke(app, [*command, "--draws", "1"])
    assert other.exit_code == 2
    assert "records of another plan" in other.output


@pytest.mark.alone
def test_a_turn_keeps_on_the_server_what_it_keeps_in_virtual_time() -> None:
    """A hundred requests, of which the server and chance may change a tenth; so that little else matters, slowly."""
    served = Served(rivals=(OURS,), loads=(1.0,), dilation=20.0, seconds=0.25, warm_s=0.05)
    turn = take_turn(served, OURS, 0, StageBar(Console(quiet=True), 0.0))
    (real,) = turn.loads
    (virtual,) = twin_turn(served, OURS, 0, 0).loads
    assert real.requests == virtual.requests
    assert real.failed == 0
    assert real.kept() == pytest.approx(virtual.kept(), abs=0.12)
