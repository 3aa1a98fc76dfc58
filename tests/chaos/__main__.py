"""`python -m tests.chaos`: faults under load, in a mount namespace of this process's own where it may have one."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.campaign import Campaign
from tests.chaos.faults.fault import Fault
from tests.chaos.faults.kinds import FAULTS
from tests.chaos.records import RecordsError, read_records
from tests.chaos.report import as_markdown, failures, unexpected
from tests.server.small_shm import may_mount

_OWN_NAMESPACE = "ISOCHRONE_CHAOS_NAMESPACE"
_VOLUME_MB, _SHM_MB = 64, 256


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; 1 where a request was lost, wrong or hung beyond what is documented, or decisions did not resume."""
    options = _options(argv)
    if _OWN_NAMESPACE not in os.environ and may_mount():
        command = ["unshare", "--mount", sys.executable, "-m", "tests.chaos", *(argv or sys.argv[1:])]
        os.execvpe(command[0], command, os.environ | {_OWN_NAMESPACE: "1"})
    with tempfile.TemporaryDirectory(prefix="vol-") as folder:
        volume = _mounted(Path(folder)) if _OWN_NAMESPACE in os.environ else None
        try:
            return _run(options, volume)
        finally:
            if volume is not None:
                subprocess.run(["umount", "--lazy", str(volume)], check=False)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults under load.")
    parser.add_argument("--faults", type=int, default=1, help="of each kind")
    parser.add_argument("--kinds", nargs="+", default=None, help="names of kinds, or parts of them; default: all")
    parser.add_argument("--window-s", type=float, default=8.0, help="of deadlines before and after each fault")
    parser.add_argument("--hold", type=float, default=1.0, help="let faults that are undone last so many times as long")
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no fault after so long")
    parser.add_argument("--json", type=Path, default=None, help="keep the records there, and go on from them")
    parser.add_argument("--markdown", type=Path, default=None, help="write the report to this file")
    return parser.parse_args(argv)


def _command(options: argparse.Namespace) -> str:
    words = [f"--faults {options.faults}", f"--window-s {options.window_s:g}", f"--hold {options.hold:g}"]
    return " ".join(["python -m tests.chaos", *words, f"--minutes {options.minutes:g}"])


def _mounted(folder: Path) -> Path:
    """Mount small file systems on this folder and on /dev/shm; nobody outside this namespace sees them."""
    for size_mb, where in ((_VOLUME_MB, folder), (_SHM_MB, Path("/dev/shm"))):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(where)], check=True)
    return folder


def _run(options: argparse.Namespace, volume: Path | None) -> int:
    faults, left_out = choose(FAULTS, options.kinds, volume is not None)
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)
    try:
        kept = read_records(options.json, options.window_s, options.hold)
    except RecordsError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    kept.left_out = left_out
    campaign = Campaign(
        faults,
        volume,
        options.window_s,
        options.hold,
        time.monotonic() + 60 * options.minutes,
        lambda text: print(text, flush=True),
        kept.records,
        kept.rates_per_s,
    )

    def interrupt(*_: object) -> None:
        """End with the fault under way; at once where that is asked again."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        campaign.stop()

    signal.signal(signal.SIGINT, interrupt)
    try:
        campaign.run(options.faults)
    except Exception as error:  # what is recorded is told all the same
        campaign.stopped = f"{type(error).__name__}: {error}"
    if options.json is not None:
        kept.write(options.json)
    text = as_markdown(campaign.records, campaign.rates_per_s, left_out, options.window_s, _command(options))
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text)
    found = [*failures(campaign.records), *filter(None, [campaign.stopped]), *unexpected(campaign.logs)]
    for failure in found:
        print(f"failed: {failure}", file=sys.stderr)
    if found:
        for log in campaign.logs:
            print(log[-6_000:], file=sys.stderr)
    return 1 if found else 0


def choose(faults: Sequence[Fault], kinds: Sequence[str] | None, may_mount: bool) -> tuple[list[Fault], list[str]]:
    """The faults that can be done here, and why the others cannot."""
    wanted = [fault for fault in faults if kinds is None or any(part in fault.kind for part in kinds)]
    missing = {}
    if not may_mount:
        missing["volume"] = "needs the right to mount file systems of its own"
    if shutil.which("envoy", path=str(Path(sys.executable).parent)) is None and shutil.which("envoy") is None:
        missing["route"] = "needs an Envoy"
    left_out = [f"{fault.kind}: {missing[need]}" for fault in wanted for need in fault.needs & missing.keys()]
    return [fault for fault in wanted if not fault.needs & missing.keys()], left_out


if __name__ == "__main__":
    sys.exit(main())
