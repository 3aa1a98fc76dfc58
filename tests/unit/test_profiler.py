"""The profiler: counted work, measured peaks, solo times by a fake engine, and a brief profile by a real one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import profiler.brief as brief_module
import profiler.work as work_module
from predictor.workload import ModelProfile
from profiler import graph, host
from profiler.brief import BriefProfile, ProfileFile, batch_sizes, brief_profile
from profiler.child import CODE_ROOT, ChildError, run_module
from profiler.features import NEUTRAL_COMPUTE, load_of
from profiler.lock import exclusive
from profiler.peaks import Peaks, PeaksFile, load_or_measure, measure_peaks
from profiler.solo import Solo, measure_solo
from profiler.store import keep_newest, write_json
from profiler.work import Work, graph_work, work_in_child

Array = NDArray[Any]
Shape = Sequence[int | str | None]

MS = 1_000_000
PEAKS = Peaks(operations_per_s=1e11, cache_bytes_per_s=5e10, dram_bytes_per_s=1e10, cache_share_bytes=50 << 20)


# Graphs


def write_model(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, Shape],
    outputs: dict[str, Shape | None],
    weights: dict[str, Array] | None = None,
    dtypes: dict[str, int] | None = None,
) -> Path:
    def values(shapes: dict[str, Shape] | dict[str, Shape | None]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, (dtypes or {}).get(name, TensorProto.FLOAT), shape)
            for name, shape in shapes.items()
        ]

    constants = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    made = helper.make_graph(nodes, "test", values(inputs), values(outputs), constants)
    domains = sorted({node.domain for node in nodes} | {""})
    opsets = [helper.make_opsetid(domain, 17 if not domain else 1) for domain in domains]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=8), path)
    return path


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    weights = {"w": ones(10, 16), "b": ones(10)}
    return write_model(tmp_path / "mlp.onnx", nodes, {"x": ["batch", 16]}, {"y": ["batch", 10]}, weights)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_gemm_and_an_elementwise_operator(mlp: Path, size: int) -> None:
    weight_bytes = 4 * (10 * 16 + 10)
    # x read, h written and read, y written
    moved = 4 * size * (16 + 10 + 10 + 10)
    assert graph_work(mlp, size) == Work(
        2 * size * 10 * 16 + size * 10, weight_bytes + moved, weight_bytes, complete=True
    )


@pytest.mark.parametrize("size", [1, 3])
def test_convolution(tmp_path: Path, size: int) -> None:
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1])
    weights = {"w": ones(4, 3, 3, 3), "b": ones(4)}
    path = write_model(tmp_path / "m.onnx", [node], {"x": [None, 3, 8, 8]}, {"y": None}, weights)
    weight_bytes = 4 * (4 * 27 + 4)
    assert graph_work(path, size) == Work(2 * size * 4 * 64 * 27, weight_bytes + 4 * size * 64 * (3 + 4), weight_bytes)


def test_grouped_convolution_has_fewer_multiplications(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=4)
    path = write_model(tmp_path / "m.onnx", [node], {"x": ["n", 4, 8, 8]}, {"y": None}, {"w": ones(4, 1, 3, 3)})
    assert graph_work(path, 1).operations == 2 * 4 * 36 * 9


def test_batched_matmul(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    inputs: dict[str, Shape] = {"a": ["n", 4, 8, 16], "b": ["n", 4, 16, 8]}
    path = write_model(tmp_path / "m.onnx", [node], inputs, {"c": None})
    assert graph_work(path, 5) == Work(2 * 5 * 4 * 8 * 8 * 16, 4 * 5 * (512 + 512 + 256), 0)


@pytest.mark.parametrize(
    ("node", "inputs", "weights", "operations"),
    [
        (
            helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]),
            {"x": ["n", 3, 4, 4]},
            {"w": ones(3, 5, 2, 2)},
            2 * 3 * 16 * 5 * 4,
        ),
        (
            helper.make_node("Einsum", ["x", "z"], ["y"], equation="bhid, bhjd -> bhij"),
            {"x": ["n", 2, 5, 4], "z": ["n", 2, 7, 4]},
            {},
            2 * 2 * 5 * 7 * 4,
        ),
        (
            helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=6),
            {"x": [9, 1, 4]},
            {"w": ones(1, 24, 4), "r": ones(1, 24, 6)},
            2 * 9 * (24 * 4 + 24 * 6),
        ),
        (helper.make_node("GlobalAveragePool", ["x"], ["y"]), {"x": ["n", 3, 4, 4]}, {}, 48),
        (helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0]), {"x": ["n", 3]}, {}, 0),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else "",
)
def test_operations_of_one_operator(
    tmp_path: Path,
    node: onnx.NodeProto,
    inputs: dict[str, Shape],
    weights: dict[str, Array],
    operations: int,
) -> None:
    work = graph_work(write_model(tmp_path / "m.onnx", [node], inputs, {"y": None}, weights), 1)
    assert (work.operations, work.complete) == (operations, True)


def test_attention_counts_both_products() -> None:
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=2, kv_num_heads=2)
    shapes = {"q": [1, 5, 8], "k": [1, 7, 8], "v": [1, 7, 8]}
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph([node], "test", values, [y]), opset_imports=[helper.make_opsetid("", 23)]
    )
    assert graph.count_work(model, 1).operations == 2 * (5 * 7 * 8) * 2


def test_a_table_that_is_looked_up_counts_the_rows_read(tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    path = write_model(
        tmp_path / "m.onnx",
        [node],
        {"ids": ["n", 5]},
        {"y": None},
        {"table": ones(1000, 8)},
        {"ids": TensorProto.INT64},
    )
    assert graph_work(path, 2) == Work(0, 2 * 5 * (32 + 8 + 32), 32_000)


def test_a_view_moves_nothing(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "to"], ["v"]), helper.make_node("Relu", ["v"], ["y"])]
    weights = {"to": np.array([0, -1], np.int64)}
    path = write_model(tmp_path / "m.onnx", nodes, {"x": ["n", 4, 4]}, {"y": None}, weights)
    assert graph_work(path, 3) == Work(48, 4 * (48 + 48) + 16, 16)


@pytest.mark.parametrize("size", [2, 3, 8, 64])
def test_work_is_affine_in_the_batch_size(mlp: Path, size: int) -> None:
    first, second, other = (graph_work(mlp, n) for n in (1, 2, size))
    for field in ("operations", "bytes_moved", "weight_bytes"):
        low, high = getattr(first, field), getattr(second, field)
        assert getattr(other, field) == low + (size - 1) * (high - low)


def test_a_fixed_batch_stays_and_other_unknown_dimensions_count_one(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    fixed = write_model(tmp_path / "fixed.onnx", [node], {"x": [1, 6]}, {"y": [1, 6]})
    assert graph_work(fixed, 8).operations == 6
    loose = write_model(tmp_path / "loose.onnx", [node], {"x": ["n", "length", 6]}, {"y": None})
    assert graph_work(loose, 8).operations == 8 * 6


def test_stale_shapes_in_the_file_do_not_count(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": ["n", 6]}, {"y": [1, 6]})
    assert graph_work(path, 4).operations == 24


def test_unknown_shapes_count_what_is_known(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("Strange", ["h"], ["s"], domain="elsewhere"),
        helper.make_node("NonZero", ["h"], ["z"]),
        helper.make_node("MatMul", ["s", "w"], ["y"]),
    ]
    path = write_model(
        tmp_path / "m.onnx", nodes, {"x": ["n", 6]}, {"y": None, "z": None}, {"w": ones(6, 6)}, {"z": TensorProto.INT64}
    )
    assert graph_work(path, 2) == Work(12, 4 * (12 + 12 + 12 + 36), 144, complete=False)


def test_bodies_of_control_flow_make_the_count_incomplete(tmp_path: Path) -> None:
    y = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "body", [], [y])
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    path = write_model(
        tmp_path / "m.onnx", [node], {"c": [], "x": ["n", 6]}, {"y": None}, dtypes={"c": TensorProto.BOOL}
    )
    assert not graph_work(path, 2).complete


def test_large_values_are_dropped_and_small_ones_kept(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(ones(64, 64))),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "v"], ["y"]),
    ]
    path = write_model(tmp_path / "m.onnx", nodes, {"x": ["n", 64]}, {"y": None}, {"v": ones(64)})
    assert graph.load_graph(path).ByteSize() < 1000
    assert graph_work(path, 1) == Work(2 * 64 * 64 + 64, 4 * (4096 + 64 + 4 * 64), 4 * (4096 + 64))


# The child process


def test_child_answers_as_this_process_does(mlp: Path) -> None:
    assert work_in_child(mlp, [1, 2, 8]) == {size: graph_work(mlp, size) for size in (1, 2, 8)}


def test_child_names_what_failed(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"not a graph")
    with pytest.raises(ChildError, match=r"^profiler\.work failed with status 1: \w"):
        work_in_child(tmp_path / "m.onnx", [1])


def test_an_empty_file_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    with pytest.raises(ValueError, match=r"m\.onnx holds no ONNX graph"):
        graph_work(tmp_path / "m.onnx", 1)


def test_child_that_cannot_start() -> None:
    with pytest.raises(ChildError, match="could not be started with /nowhere/python: No such file"):
        run_module("profiler.work", [], timeout_s=1, python="/nowhere/python")


def test_child_that_does_not_end() -> None:
    with pytest.raises(ChildError, match="did not finish within"):
        run_module("profiler.work", [], timeout_s=0.001)


def test_child_answer_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_module, "run_module", lambda *_, **__: b"hello")
    with pytest.raises(ChildError, match="cannot be read"):
        work_in_child(Path("m.onnx"), [1])


# Solo times


class FakeEngine:
    """Its time is its own: a run lasts what `duration_ns(size, run)` says and nothing else takes time."""

    def __init__(self, duration_ns: Callable[[int, int], int]) -> None:
        self.duration_ns = duration_ns
        self.now_ns = 0
        self.sizes: list[int] = []

    def clock(self) -> int:
        return self.now_ns

    def run(self, size: int) -> int:
        taken_ns = self.duration_ns(size, len(self.sizes))
        self.sizes.append(size)
        self.now_ns += taken_ns
        return taken_ns

    def measure(self, sizes: Sequence[int], budget_ns: int) -> dict[int, Solo]:
        return measure_solo(self.run, sizes, budget_ns=budget_ns, clock=self.clock)


def test_a_steady_model_is_soon_known() -> None:
    engine = FakeEngine(lambda size, _: size * MS)
    assert engine.measure([8, 1, 4, 2], 2000 * MS) == {n: Solo(n * MS, n * MS, 8) for n in (1, 2, 4, 8)}
    assert engine.now_ns < 200 * MS


def test_the_first_run_of_a_size_does_not_count() -> None:
    engine = FakeEngine(lambda size, i: 500 * MS if i == 0 else size * MS)
    assert engine.measure([1, 2], 2000 * MS)[1] == Solo(MS, MS, 8)


def test_a_noisy_model_uses_its_budget_and_no_more() -> None:
    noise = np.random.default_rng(1).lognormal(0, 0.5, 1000)
    engine = FakeEngine(lambda size, i: round(10 * size * MS * noise[i]))
    measured = engine.measure([1, 2], 1000 * MS)
    assert 900 * MS < engine.now_ns < 1200 * MS
    assert measured[1].runs > 8
    assert measured[1].p50_ns == pytest.approx(10 * MS, rel=0.3)
    assert measured[1].p95_ns > measured[1].p50_ns


def test_rare_disturbances_do_not_move_the_median() -> None:
    engine = FakeEngine(lambda _, i: 40 * MS if i % 7 == 3 else MS)
    assert engine.measure([1], 2000 * MS)[1].p50_ns == MS


def test_a_slow_model_is_measured_past_the_budget_at_size_one_only() -> None:
    engine = FakeEngine(lambda size, _: 3000 * size * MS)
    assert engine.measure([1, 2, 4], 2000 * MS) == {1: Solo(3000 * MS, 3000 * MS, 3)}
    assert engine.sizes == [1] * 4


def test_sizes_that_do_not_fit_are_left_out() -> None:
    engine = FakeEngine(lambda size, _: 50 * size * MS)
    measured = engine.measure([1, 2, 4, 8], 1000 * MS)
    assert list(measured) == [1, 2]
    assert engine.now_ns <= 1100 * MS


def test_runs_are_bounded_and_positive() -> None:
    durations = [0, 100, 200]
    engine = FakeEngine(lambda _, i: durations[i % 3])
    measured = engine.measure([1], 10_000 * MS)[1]
    assert measured.runs <= 200
    assert FakeEngine(lambda *_: 0).measure([1], MS)[1].p50_ns == 1


# Peaks


def test_peaks_are_plausible() -> None:
    peaks = measure_peaks(0.01)
    assert 1e8 < peaks.operations_per_s < 1e13
    assert 1e8 < peaks.dram_bytes_per_s < 1e13
    assert 1e8 < peaks.cache_bytes_per_s < 1e13
    assert peaks.cache_share_bytes > 0


class Measure:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Peaks:
        self.calls += 1
        return PEAKS


def test_peaks_are_measured_once(tmp_path: Path) -> None:
    measure = Measure()
    directory = tmp_path / "made" / "here"
    assert load_or_measure(directory, measure) == PEAKS
    assert load_or_measure(directory, measure) == PEAKS
    assert measure.calls == 1
    assert sorted(path.name for path in directory.iterdir()) == ["peaks.json", "peaks.lock"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        msgspec.json.encode(PeaksFile(99, host.cpu_name(), "1", "1", PEAKS)),
        msgspec.json.encode(PeaksFile(1, "another processor", "1", "1", PEAKS)),
        b"x" * (2 << 20),
    ],
    ids=["empty", "broken", "foreign", "schema", "processor", "huge"],
)
def test_peaks_of_another_machine_or_broken_are_measured_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "peaks.json").write_bytes(content)
    measure = Measure()
    assert load_or_measure(tmp_path, measure) == load_or_measure(tmp_path, measure) == PEAKS
    assert measure.calls == 1


def test_peaks_need_no_writable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert load_or_measure(tmp_path / "file" / "folder", Measure()) == PEAKS


TWO_AT_ONCE = """
import os, sys, time
from pathlib import Path
from profiler.peaks import Peaks, load_or_measure

directory, name = Path(sys.argv[1]), sys.argv[2]

def measure():
    (directory / f"measured-{name}").touch()
    while not (directory / "go").exists():
        time.sleep(0.005)
    return Peaks(1.0, 1.0, 1.0, 1)

(directory / f"started-{name}").touch()
assert load_or_measure(directory, measure).operations_per_s == 1.0
"""


def test_two_processes_measure_once(tmp_path: Path) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", TWO_AT_ONCE, str(tmp_path), name], cwd=CODE_ROOT) for name in "ab"
    ]
    give_up_s = time.monotonic() + 20
    while len(list(tmp_path.glob("started-*"))) < 2 or not list(tmp_path.glob("measured-*")):
        assert time.monotonic() < give_up_s
        time.sleep(0.005)
    (tmp_path / "go").touch()
    assert [child.wait(20) for child in children] == [0, 0]
    assert len(list(tmp_path.glob("measured-*"))) == 1


# Lock and files


def test_lock_is_given_up_after_the_wait(tmp_path: Path) -> None:
    waits: list[float] = []
    with exclusive(tmp_path / "lock", 1.0) as first, exclusive(tmp_path / "lock", 1.0, waits.append) as second:
        assert (first, second) == (True, False)
    assert sum(waits) == pytest.approx(1.0)
    with exclusive(tmp_path / "lock", 1.0, waits.append) as third:
        assert third


def test_only_the_newest_files_are_kept(tmp_path: Path) -> None:
    for i in range(6):
        write_json(tmp_path / f"{i}.json", i)
        os.utime(tmp_path / f"{i}.json", (i, i))
    keep_newest(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4.json", "5.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", object())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["1\n"]


@pytest.mark.parametrize(("text", "size_bytes"), [("2048K", 2 << 20), ("32M", 32 << 20)])
def test_last_level_cache_is_the_highest_level(tmp_path: Path, text: str, size_bytes: int) -> None:
    for level, size, cpus in ((1, "48K", "0"), (3, text, "0-3,8")):
        index = tmp_path / f"index{level}"
        index.mkdir()
        for name, value in (("level", str(level)), ("size", size), ("shared_cpu_list", cpus)):
            (index / name).write_text(value + "\n")
    (tmp_path / "index7").mkdir()  # hidden, as in some containers
    assert host.last_level_cache(tmp_path) == (size_bytes, 5)


def test_last_level_cache_is_guessed_where_hidden(tmp_path: Path) -> None:
    assert host.last_level_cache(tmp_path / "none")[1] == 1


# Features


def test_features_are_shares_of_the_peaks() -> None:
    load = load_of(Work(10**9, 50 << 20, 40 << 20), 20 * MS, PEAKS)
    assert load.solo_ns == 20 * MS
    assert load.compute == pytest.approx(0.5)
    assert load.l2 == pytest.approx((50 << 20) / 1e9)
    assert load.dram == pytest.approx((25 << 20) / 2e8)  # as large as the share of the cache: half of it misses


@pytest.mark.parametrize("work", [Work(0, 0, 0), Work(10**15, 10**15, 10**15)])
def test_features_stay_within_zero_and_one(work: Work) -> None:
    assert set(load_of(work, 1, PEAKS).features) <= {0.0, 1.0}


# The brief profile


class Engine:
    """A real session on one thread."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.calls = 0

    def run(self, size: int) -> int:
        self.calls += 1
        start_ns = time.perf_counter_ns()
        self.session.run(None, {"x": ones(size, 16)})
        return time.perf_counter_ns() - start_ns


class Profiling:
    """`brief_profile` over one folder, with peaks that cost nothing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(
        self, path: Path, run: Callable[[int], int], max_batch_size: int = 4, engine: str | None = None
    ) -> BriefProfile:
        return brief_profile(
            path,
            run,
            max_batch_size,
            directory=self.directory,
            budget_ns=20 * MS,
            engine=engine,
            measure_peaks=lambda _: PEAKS,
        )

    def files(self) -> list[Path]:
        return sorted((self.directory / "profiles").glob("*"))


@pytest.fixture
def profiling(tmp_path: Path) -> Profiling:
    return Profiling(tmp_path / "runtime")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work without a child process, where the child is not the question."""
    monkeypatch.setattr(brief_module, "work_in_child", lambda path, sizes: {n: graph_work(path, n) for n in sizes})


@pytest.mark.parametrize(("max_batch_size", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_batch_sizes_are_powers_of_two_and_the_largest(max_batch_size: int, sizes: list[int]) -> None:
    assert batch_sizes(max_batch_size) == sizes


def test_brief_profile_end_to_end(mlp: Path, tmp_path: Path) -> None:
    brief = brief_profile(mlp, Engine(mlp).run, 4, directory=tmp_path / "runtime", budget_ns=20 * MS)
    assert brief.note is None
    assert brief.profile.batch_sizes == (1, 2, 4)
    for load in brief.profile.loads:
        assert load.solo_ns > 0
        assert all(0 < share <= 1 for share in load.features)


@pytest.mark.usefixtures("counted")
def test_a_model_without_batching_has_one_size(mlp: Path, profiling: Profiling) -> None:
    assert profiling(mlp, Engine(mlp).run, max_batch_size=0).profile.batch_sizes == (1,)


@pytest.mark.usefixtures("counted")
def test_a_profile_is_remembered_for_the_same_model_only(mlp: Path, profiling: Profiling) -> None:
    first, again = Engine(mlp), Engine(mlp)
    assert profiling(mlp, first.run) == profiling(mlp, again.run)
    assert (first.calls > 0, again.calls) == (True, 0)
    profiling(mlp, again.run, max_batch_size=2)
    profiling(mlp, again.run, engine="another")
    assert len(profiling.files()) == 3
    mlp.write_bytes(mlp.read_bytes() + b"\x72\x00")  # an empty field at the end: the same graph, other bytes
    profiling(mlp, again.run)
    assert len(profiling.files()) == 4


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("broken", [b"", b"{}", b'{"schema": 1}'])
def test_a_broken_file_is_replaced(mlp: Path, profiling: Profiling, broken: bytes) -> None:
    engine = Engine(mlp)
    profiling(mlp, engine.run)
    stored = profiling.files()[0]
    stored.write_bytes(broken)
    calls = engine.calls
    profiling(mlp, engine.run)
    assert engine.calls > calls
    assert msgspec.json.decode(stored.read_bytes(), type=ProfileFile).schema == 1


@pytest.mark.usefixtures("counted")
def test_a_file_of_another_model_is_not_believed(mlp: Path, profiling: Profiling) -> None:
    engine = Engine(mlp)
    profiling(mlp, engine.run, engine="one")
    foreign = profiling.files()[0].read_bytes()
    profiling(mlp, engine.run, engine="two")
    for path in profiling.files():
        path.write_bytes(foreign)
    calls = engine.calls
    profiling(mlp, engine.run, engine="two")
    assert engine.calls > calls


def test_a_model_that_is_no_onnx_graph_has_neutral_features(tmp_path: Path, profiling: Profiling) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"plan")
    brief = profiling(plan, lambda size: size * MS)
    assert brief.note == "features are neutral values, since model.plan is not an ONNX graph"
    assert {load.compute for load in brief.profile.loads} == {NEUTRAL_COMPUTE}
    assert len(profiling.files()) == 1


def test_a_failure_is_noted_and_tried_again(mlp: Path, profiling: Profiling, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> dict[int, Work]:
        raise ChildError("profiler.work did not finish within 60 s")

    monkeypatch.setattr(brief_module, "work_in_child", fail)
    brief = profiling(mlp, Engine(mlp).run)
    assert brief.note == "features are neutral values, since profiler.work did not finish within 60 s"
    assert not profiling.files()


def test_an_incomplete_count_is_noted(mlp: Path, profiling: Profiling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        brief_module, "work_in_child", lambda _, sizes: {n: Work(1, 1, 1, complete=False) for n in sizes}
    )
    assert (
        profiling(mlp, Engine(mlp).run).note == "features are lower bounds, since some operators' shapes are not known"
    )


@pytest.mark.usefixtures("counted")
def test_the_lock_of_another_model_is_waited_for_only_so_long(
    mlp: Path, profiling: Profiling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brief_module, "LOCK_WAIT_S", 0.0)
    with exclusive(profiling.directory / "profiling.lock", 0.0):
        brief = profiling(mlp, Engine(mlp).run)
    assert isinstance(brief.profile, ModelProfile)
    assert brief.note == "latency may have been measured beside another model's measuring"
    assert not profiling.files()


@pytest.mark.usefixtures("counted")
def test_a_folder_that_cannot_be_written_costs_only_the_memory(mlp: Path, tmp_path: Path) -> None:
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "profiles").touch()
    brief = Profiling(tmp_path / "runtime")(mlp, Engine(mlp).run)
    assert brief.note is not None
    assert "the profile is not remembered" in brief.note


@pytest.mark.usefixtures("counted")
def test_remembered_profiles_are_bounded(mlp: Path, profiling: Profiling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brief_module, "FILES_MAX", 3)
    engine = Engine(mlp)
    for version in range(5):
        profiling(mlp, engine.run, engine=str(version))
    assert len(profiling.files()) == 3


def test_serving_code_does_not_load_the_onnx_library() -> None:
    code = "import sys, profiler.brief; sys.exit(any(name in sys.modules for name in ('onnx', 'onnxruntime')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=CODE_ROOT, check=False).returncode == 0
