"""An engine in a real engine process does what it does in the model's own process, also where that process dies."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from backend.config.model_config import EngineConfig
from backend.config.parameters import Parameters
from backend.device_process import LINGER_S
from backend.engine_process.client import watch as shared_watch
from backend.engine_process.client.engine import EngineClient
from backend.engine_process.wire.messages import PROTOCOL, EnginePong, decode_pong
from backend.engines.loading import load_engine
from backend.engines.protocol import Engine
from backend.errors import ConfigError, EngineError
from backend.linux import hang_detector
from backend.model_process.placement import open_engine
from backend.runtime_dir import meeting_point
from backend.tensors import Array
from tests.fakes.fake_model import eventually
from tests.fakes.open_files import open_files
from tests.server.harness import batchmates, graph, mlp, write_model
from tests.server.test_datatypes import every_type, of_every_type

pytestmark = pytest.mark.usefixtures("runtime_dir")

CODE_ROOT = Path(__file__).resolve().parents[2]
ONE_ROW: dict[str, list[Array]] = {"x": [np.ones((1, 1), np.float32)]}
HEAVY_BYTES = 4 * 2 * 2048**2
GATHER = graph(
    [helper.make_node("Gather", ["table", "x"], ["y"])],
    {"x": (np.int64, ["batch", 1])},
    {"y": (np.float32, ["batch", 1])},
    {"table": np.arange(10, dtype=np.float32)},
)


def config(folder: Path, model: onnx.ModelProto | bytes, name: str = "m") -> EngineConfig:
    """Of a model that lies in `folder`; as much of it as opening an engine takes."""
    file = write_model(folder, name, model, "") / "1" / "model.onnx"
    return EngineConfig(name, "1", file, 8, Parameters(engine_process="shared"), None)


def own(config: EngineConfig) -> Engine:
    return load_engine(config.model_file, config.options(2))


def engine_process() -> int:
    """0 while a new one is about to say which it is."""
    return int(meeting_point("cpu", "engine process", PROTOCOL).lock.read_text() or 0)


def log() -> str:
    return meeting_point("cpu", "engine process", PROTOCOL).log.read_text()


def gone(pid: int) -> bool:
    """Ended; a zombie that nobody has waited for yet is."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def cpu_s(pid: int) -> float:
    """What it has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def computes(more_than_s: float) -> bool:
    return cpu_s(engine_process()) > more_than_s


def x(rows: int = 1, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, 16)).astype(np.float32)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Engine, Engine]]:
    """One model in an engine process and in this process."""
    made = config(tmp_path, mlp(16, 4, hidden=64))
    with closing(open_engine(made)) as shared, closing(own(made)) as ours:
        assert isinstance(shared, EngineClient)
        yield shared, ours


def test_specs_and_identity_are_those_of_the_engine(small: tuple[Engine, Engine]) -> None:
    shared, ours = small
    assert (shared.inputs, shared.outputs, shared.identity) == (ours.inputs, ours.outputs, ours.identity)


def test_many_models_do_not_run_out_of_descriptors(small: tuple[Engine, Engine]) -> None:
    assert small[0].identity
    limits = Path(f"/proc/{engine_process()}/limits").read_text()
    soft, hard = re.findall(r"^Max open files +(\S+) +(\S+)", limits, re.MULTILINE)[0]
    assert soft == hard


def test_answers_are_equal_bit_for_bit_and_stay_so(small: tuple[Engine, Engine]) -> None:
    shared, ours = small
    answers = [shared.run(i % 3, {"x": [x(2, i), x(1, 99 - i)]}, ["y"]) for i in range(1, 40)]
    for i, answer in enumerate(answers, start=1):
        (expected,) = ours.run(0, {"x": [x(2, i), x(1, 99 - i)]}, ["y"]).outputs
        np.testing.assert_array_equal(answer.outputs[0], expected, strict=True)
        assert answer.exec_ns > 0


def test_every_type_in_parts(tmp_path: Path) -> None:
    made = config(tmp_path, every_type())
    given = [of_every_type(rows, seed=0) for rows in (1, 3, 2)]
    feeds: dict[str, list[Array]] = {name: [arrays[name] for arrays in given] for name in given[0]}
    feeds["text"] = [np.array([[str(t) for t in row] for row in part.tolist()], np.object_) for part in feeds["text"]]
    names = [f"{name}_out" for name in feeds][::-1]
    with closing(open_engine(made)) as shared, closing(own(made)) as ours:
        for wanted in (names, names[:1], names[3:]):
            found, expected = shared.run(0, feeds, wanted).outputs, ours.run(0, feeds, wanted).outputs
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other, strict=True)


def test_lanes_run_at_the_same_time(tmp_path: Path) -> None:
    took_ns: list[int] = []
    with closing(open_engine(config(tmp_path, batchmates(300.0)))) as shared:

        def run(lane: int) -> None:
            took_ns.append(shared.run(lane, ONE_ROW, ["y"]).exec_ns)

        began_ns = time.monotonic_ns()
        in_threads(partial(run, 0), partial(run, 1))
        assert time.monotonic_ns() - began_ns < sum(took_ns)


def test_a_run_that_raises_says_the_same(tmp_path: Path) -> None:
    made = config(tmp_path, GATHER)
    with closing(open_engine(made)) as shared, closing(own(made)) as ours:
        for feeds in ({"x": [np.array([[300]])]}, {"x": [np.ones((1, 1), np.float32)]}, {"z": [np.array([[1]])]}, {}):
            sentences = []
            for engine in (ours, shared):
                with pytest.raises(EngineError) as caught:
                    engine.run(0, feeds, ["y"])
                sentences.append(str(caught.value))
            assert sentences[0] == sentences[1]
        assert shared.run(0, {"x": [np.array([[3]])]}, ["y"]).outputs[0] == 3


@pytest.mark.parametrize("content", [None, b"", b"nonsense"], ids=["missing", "empty", "broken"])
def test_a_model_that_cannot_be_loaded_says_the_same_and_others_go_on(
    tmp_path: Path, content: bytes | None, small: tuple[Engine, Engine]
) -> None:
    made = config(tmp_path, content or b"", "bad")
    if content is None:
        made.model_file.unlink()
    sentences = []
    for open_it in (own, open_engine):
        with pytest.raises(ConfigError) as caught:
            open_it(made)
        sentences.append(str(caught.value))
    assert sentences[0] == sentences[1]
    assert small[0].run(0, {"x": [x()]}, ["y"]).exec_ns > 0


def test_a_killed_engine_process_costs_no_batch(small: tuple[Engine, Engine]) -> None:
    shared, ours = small
    (expected,) = ours.run(0, {"x": [x()]}, ["y"]).outputs
    killed: set[int] = set()
    answered = [0, 0]

    def load(lane: int) -> None:
        while len(killed) < 3 or answered[lane] % 50:
            np.testing.assert_array_equal(shared.run(lane, {"x": [x()]}, ["y"]).outputs[0], expected)
            answered[lane] += 1

    def reached(goal: int) -> bool:
        return sum(answered) > goal

    def kill() -> None:
        for _ in range(3):
            goal = sum(answered) + 100
            eventually(partial(reached, goal))
            eventually(lambda: engine_process() not in {0, *killed})
            killed.add(pid := engine_process())
            os.kill(pid, signal.SIGKILL)

    in_threads(partial(load, 0), partial(load, 1), kill)
    assert engine_process() not in killed


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that stand still are found out soon."""
    monkeypatch.setattr(shared_watch, "PING_EVERY_S", 0.05)
    monkeypatch.setattr(hang_detector, "WAIT_S", 0.2)
    monkeypatch.setattr(hang_detector, "WAITS", 3)


@pytest.mark.usefixtures("impatient")
def test_an_engine_process_that_hangs_is_ended_and_what_it_ran_is_run_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(open_engine(config(tmp_path, batchmates(1_000.0)))) as shared:
        hung = engine_process()

        def hang() -> None:
            eventually(partial(computes, cpu_s(hung) + 0.1))
            os.kill(hung, signal.SIGSTOP)

        def run() -> None:
            assert shared.run(0, ONE_ROW, ["y"]).exec_ns > 0

        in_threads(run, hang)
        assert gone(hung)
        assert engine_process() != hung
    assert f"engine process {hung} hangs and is killed" in caplog.text


@pytest.mark.usefixtures("impatient")
def test_a_model_that_comes_to_an_engine_process_that_hangs_is_loaded(
    tmp_path: Path, small: tuple[Engine, Engine]
) -> None:
    hung = engine_process()
    os.kill(hung, signal.SIGSTOP)
    with closing(open_engine(config(tmp_path, mlp(16, 2), "newcomer"))) as shared:
        assert shared.run(0, {"x": [x()]}, ["y"]).exec_ns > 0
        assert small[0].run(0, {"x": [x()]}, ["y"]).exec_ns > 0
        assert gone(hung)


@pytest.mark.usefixtures("impatient")
def test_an_engine_process_that_has_nothing_to_do_is_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[EnginePong] = []

    def counted(packet: bytes) -> EnginePong:
        answers.append(decode_pong(packet))
        return answers[-1]

    monkeypatch.setattr(shared_watch, "decode_pong", counted)
    with closing(open_engine(config(tmp_path, mlp(16, 2)))):
        before = engine_process()
        eventually(lambda: len(answers) > 30)
        assert engine_process() == before
        assert not gone(before)


@pytest.mark.usefixtures("impatient")
def test_a_batch_that_takes_long_is_no_hang(tmp_path: Path) -> None:
    """Longer than an engine process is waited for that does nothing."""
    with closing(open_engine(config(tmp_path, batchmates(3_000.0)))) as shared:
        before = engine_process()
        patience_s = shared_watch.PING_EVERY_S + hang_detector.WAITS * hang_detector.WAIT_S
        assert shared.run(0, ONE_ROW, ["y"]).exec_ns > patience_s * 1e9
        assert engine_process() == before
        assert not gone(before)


def test_a_batch_that_takes_the_engine_process_down_is_run_twice_and_no_more(tmp_path: Path) -> None:
    with closing(open_engine(config(tmp_path, batchmates(1_000.0)))) as shared:
        killed: list[int] = []

        def kill() -> None:
            for _ in range(2):
                eventually(lambda: engine_process() not in {0, *killed} and log().count("loaded") > len(killed))
                loaded_s = cpu_s(engine_process())
                eventually(partial(computes, loaded_s + 0.1))
                killed.append(engine_process())
                os.kill(killed[-1], signal.SIGKILL)

        def run() -> None:
            with pytest.raises(EngineError, match="the engine process died, and died again"):
                shared.run(0, ONE_ROW, ["y"])

        meeting_point("cpu", "engine process", PROTOCOL).log.write_text("loaded\n")
        in_threads(run, kill)
        assert shared.run(0, ONE_ROW, ["y"]).exec_ns > 0


def test_a_file_that_changed_is_not_taken_for_the_model_that_was_loaded(tmp_path: Path) -> None:
    made = config(tmp_path, mlp(16, 2, seed=1))
    with closing(open_engine(made)) as shared:
        write_model(tmp_path, "m", mlp(16, 2, seed=2), "")
        assert shared.run(0, {"x": [x()]}, ["y"]).exec_ns > 0
        assert shared.lost is None
        os.kill(engine_process(), signal.SIGKILL)
        with pytest.raises(EngineError, match="is not what it was when it was loaded; load the model again"):
            shared.run(0, {"x": [x()]}, ["y"])
        assert shared.lost is not None
        assert "load the model again" in shared.lost
    with closing(open_engine(made)) as again:
        assert again.run(0, {"x": [x()]}, ["y"]).exec_ns > 0


def test_a_model_of_many_inputs(tmp_path: Path) -> None:
    """More than one packet can tell of."""
    names = [f"an_input_with_a_name_of_some_length_{i}" for i in range(1_500)]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names]
    tensor: tuple[type, list[int | str]] = (np.float32, ["batch", 1])
    made = config(tmp_path, graph(nodes, dict.fromkeys(names, tensor), {f"{n}_out": tensor for n in names}))
    feeds = {name: [np.full((1, 1), i, np.float32)] for i, name in enumerate(names)}
    with closing(open_engine(made)) as shared:
        assert [spec.name for spec in shared.inputs] == names
        ran = shared.run(0, feeds, [f"{name}_out" for name in names])
    assert [array.item() for array in ran.outputs] == list(range(1_500))


def test_models_that_come_and_go_take_their_memory_with_them(tmp_path: Path, small: tuple[Engine, Engine]) -> None:
    small[0].run(0, {"x": [x()]}, ["y"])
    heavy = config(tmp_path, mlp(16, 4, hidden=2048), "heavy")
    before = memory_bytes(engine_process())
    for turn in range(1, 5):
        with closing(open_engine(heavy)) as engine:
            engine.run(turn % 2, {"x": [x()]}, ["y"])
            assert memory_bytes(engine_process()) > before + HEAVY_BYTES
        eventually(lambda: memory_bytes(engine_process()) < before + HEAVY_BYTES // 2)


def test_a_process_that_dies_leaves_nothing_in_the_engine_process(tmp_path: Path, small: tuple[Engine, Engine]) -> None:
    made = config(tmp_path, mlp(16, 2, seed=3), "doomed")
    code = (
        "import sys, pathlib, numpy; from backend.engine_process.client.engine import EngineClient\n"
        "from backend.engines.protocol import EngineOptions\n"
        "engine = EngineClient('cpu', pathlib.Path(sys.argv[1]), EngineOptions(None, 2, 8))\n"
        "engine.run(0, {'x': [numpy.ones((1, 16), numpy.float32)]}, ['y']); print('runs', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    small[0].run(0, {"x": [x()]}, ["y"])
    before = open_files(engine_process())
    argv = [sys.executable, "-c", code, str(made.model_file)]
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, cwd=CODE_ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "runs\n"
            assert open_files(engine_process()) > before
        finally:
            process.kill()
    eventually(lambda: f"closed '{made.model_file}'" in log())
    eventually(lambda: open_files(engine_process()) <= before)  # models of earlier tests may have been leaving still


def test_the_last_model_that_leaves_ends_the_engine_process_and_leaves_nothing_here(tmp_path: Path) -> None:
    before = open_files(os.getpid())
    with closing(open_engine(config(tmp_path, mlp(16, 2)))) as shared:
        for lane in range(3):
            shared.run(lane, {"x": [x()]}, ["y"])
        pid = engine_process()
        assert not gone(pid)
    assert open_files(os.getpid()) == before
    left = time.monotonic()
    eventually(lambda: gone(pid))
    assert time.monotonic() - left > LINGER_S - 1.0
    assert not meeting_point("cpu", "engine process", PROTOCOL).socket.exists()


def test_a_run_when_the_model_is_closed(tmp_path: Path) -> None:
    shared = open_engine(config(tmp_path, mlp(16, 2)))
    shared.close()
    with pytest.raises(EngineError):
        shared.run(0, {"x": [x()]}, ["y"])


def memory_bytes(pid: int) -> int:
    """In RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def in_threads(*work: Callable[[], None]) -> None:
    """At the same time; raises what one of them raises."""
    with ThreadPoolExecutor(len(work)) as pool:
        for each in [pool.submit(one) for one in work]:
            each.result(timeout=60.0)
