"""`python -m tests.server.malformed`: the long form; prints what came of it as JSON.

Exit status 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.server.malformed.campaign import (
    broken_models,
    broken_models_in_process,
    broken_requests,
    grown,
    held,
    serving,
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.server.malformed", description="Break requests and models.")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--windows", type=int, default=10, help="each after one with none and one with right ones")
    parser.add_argument("--models", type=int, default=2_000, help="taken through the load's checks without a server")
    parser.add_argument("--models-on-server", type=int, default=200, help="loaded on the server; some 1 s each")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="iso-malformed-") as folder, serving(Path(folder)) as server:
        pids = {"tritonserver": server.pid, **server.stub_pids()}
        if options.requests:
            broken_requests(server, options.seed + 10**6, 300)  # so that threads and connections are there
            before = held(server)
            report["requests"] = vars(broken_requests(server, options.seed, options.requests, options.windows))
            report["grown"] = grown(server, before)
        if options.models_on_server:
            account = broken_models(server, Path(folder), options.seed, options.models_on_server)
            report["models on the server"] = account.shown()
        alive = {"tritonserver": server.pid, **server.stub_pids()}
        report["died"] = sorted(name for name, pid in pids.items() if alive.get(name) != pid)
    report["exit code"] = server.stop()
    if options.models:
        report["models in process"] = broken_models_in_process(options.seed, options.models).shown()
    json.dump(report, sys.stdout, indent=1)
    parts = [report.get(name) or {} for name in ("requests", "models on the server", "models in process")]
    wrong = any(part.get("faults") or part.get("good_wrong") for part in parts)
    sys.exit(1 if wrong or report["died"] or report.get("grown") or report["exit code"] else 0)


if __name__ == "__main__":
    main()
