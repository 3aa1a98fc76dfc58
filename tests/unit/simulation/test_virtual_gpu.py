"""A GPU in virtual time beside the law's own arithmetic, and its copies first in, first out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.simulation.gpu_law import NO_EFFECTS, GpuEffects, GpuLaw, KernelDemand
from backend.simulation.virtual_gpu import BOTH_WAYS, CopyEngines, GpuBatch, VirtualGpu

A, B = KernelDemand("a", 1, 0.8, 1.2), KernelDemand("b", 1, 0.6, 0.7)
LAW = GpuLaw(seed=3)
COPIES = CopyEngines(bytes_per_ns=10.0, latency_ns=100.0)


def finish(gpu: VirtualGpu) -> list[GpuBatch]:
    finished = []
    while gpu.next_ns is not None:
        if (batch := gpu.step()) is not None:
            finished.append(batch)
    return finished


def test_batch_alone_takes_its_solo_latency_and_its_copies() -> None:
    gpu = VirtualGpu(LAW, COPIES)
    batch = gpu.submit(A, 5000.0, 50.0, bytes_in=1000, bytes_out=2000)

    assert finish(gpu) == [batch]
    assert batch.times == pytest.approx((50.0, 250.0, 5250.0, 5550.0))


def test_batch_is_slowed_down_only_while_another_runs() -> None:
    gpu = VirtualGpu(LAW)
    first = gpu.submit(A, 10_000.0, 0.0)
    second = gpu.submit(B, 2_000.0, 4_000.0)
    finish(gpu)
    both_ns = 2_000.0 * LAW.slowdown(B, [A])

    assert second.executed_ns == pytest.approx(4_000.0 + both_ns)
    assert first.executed_ns == pytest.approx(10_000.0 + both_ns * (1 - 1 / LAW.slowdown(A, [B])))


def test_slowdowns_are_those_of_the_batches_that_run_whoever_came_and_went() -> None:
    stream, law = np.random.default_rng(4), GpuLaw(seed=3, effects=GpuEffects(mhz_per_w=0.0))
    kinds = [KernelDemand(f"m{i}", 1, 0.2 * i, 2.0 / i, priority=1 + i % 2) for i in range(1, 5)]
    gpu, running, seen = VirtualGpu(law), list[GpuBatch](), 0
    for now_ns in np.cumsum(stream.exponential(1000.0, 100)).tolist():
        while gpu.next_ns is not None and gpu.next_ns <= now_ns:
            gpu.step()
        running.append(gpu.submit(kinds[stream.integers(4)], float(stream.uniform(1e3, 3e3)), now_ns))
        running = [batch for batch in running if not batch.executed_ns]
        for batch in running:
            others = [other.demand for other in running if other is not batch]
            assert batch.slowdown == law.slowdown(batch.demand, others, batch.luck)
        seen = max(seen, len(running))
    assert seen > 4


def test_batches_of_a_model_differ_by_noise_and_the_seed_decides() -> None:
    def runs_ns(seed: int, noise_sd: float) -> list[float]:
        gpu, found = VirtualGpu(GpuLaw(seed, effects=replace(NO_EFFECTS, noise_sd=noise_sd))), []
        for i in range(500):
            gpu.submit(A, 5000.0, 1e6 * i)
            found += [batch.executed_ns - batch.started_ns for batch in finish(gpu)]
        return found

    noisy = runs_ns(1, 0.05)
    assert np.std(np.log(noisy)) == pytest.approx(0.05, rel=0.1)
    assert runs_ns(1, 0.05) == noisy
    assert runs_ns(2, 0.0) == pytest.approx([5000.0] * 500)


def test_copies_of_one_direction_wait_in_line() -> None:
    gpu = VirtualGpu(LAW, COPIES)
    first, second = (gpu.submit(A, 1e6, 0.0, bytes_in=9000) for _ in range(2))
    finish(gpu)

    assert (first.started_ns, second.started_ns) == pytest.approx((1000.0, 2000.0))


def test_copies_slow_each_other_down_across_directions() -> None:
    gpu = VirtualGpu(LAW, COPIES)
    out = gpu.submit(A, 1000.0, 0.0, bytes_out=9000)
    into = gpu.submit(B, 1e6, 1000.0, bytes_in=9000)
    finish(gpu)

    assert out.finished_ns - out.executed_ns == pytest.approx(1000.0 / BOTH_WAYS)
    assert into.started_ns - 1000.0 == pytest.approx(1000.0 / BOTH_WAYS)
