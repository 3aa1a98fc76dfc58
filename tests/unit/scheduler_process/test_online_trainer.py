"""Training between decisions, whose results outlive the scheduler's process."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from backend.scheduler.core import Scheduler
from backend.scheduler.messages import Adopt, AdoptedBatch, Arrive, Finish, Launch, Request
from backend.scheduler_process.online_trainer import OnlineTrainer
from predictor.features import Own
from tests.fakes.builders import MS, join, load, profile

OWN = Own("m", 1, load(10.0))


def scheduler(trainer: OnlineTrainer) -> Scheduler:
    """One of its lanes is taken, by a batch like those to come."""
    made = Scheduler(2, None, trainer.predictor, trainer.bound, transfers=trainer.transfers)
    made.handle(1, join(profile(10.0)), 0)
    made.handle(1, Adopt((AdoptedBatch(-1, 1, 1),)), 0)
    return made


def run(trainer: OnlineTrainer, made: Scheduler, batches: int, exec_ms: float) -> None:
    """Batches of one, each beside that one, with inputs of 1 MB that take 0.1 ms."""
    begun_ns = made._now_ns
    for i in range(batches):
        at_ns = begun_ns + (i + 1) * 100 * MS
        (launch,) = made.handle(1, Arrive((Request(at_ns, 1, at_ns, None, 1),)), at_ns)
        assert isinstance(launch, Launch)
        exec_ns, in_ns = round(exec_ms * MS), MS // 10
        made.handle(1, Finish(launch.batch, exec_ns, in_ns, 0, 1_000_000), at_ns + in_ns + exec_ns)
        trainer.train(made)


def beside_one(trainer: OnlineTrainer) -> float:
    return trainer.predictor.slowdown_function(OWN).slowdown(trainer.predictor.contribution(OWN))


def test_the_trainer_learns_what_ended_and_a_successor_knows_it(tmp_path: Path) -> None:
    trainer = OnlineTrainer(tmp_path / "cpu.state")
    assert beside_one(trainer) == pytest.approx(1.1, abs=0.1)
    made = scheduler(trainer)
    run(trainer, made, 60, exec_ms=15.0)
    made.handle(1, Finish(-1, None), made._now_ns)
    run(trainer, made, 1, exec_ms=15.0)  # what was moved is learned from once all that ran beside it is over
    assert beside_one(trainer) == pytest.approx(1.5, abs=0.05)
    trainer.close()
    successor = OnlineTrainer(tmp_path / "cpu.state")
    assert beside_one(successor) == beside_one(trainer)
    assert successor.bound.multiplier == trainer.bound.multiplier
    assert successor.transfers.h2d.solo_ns(2e6) == trainer.transfers.h2d.solo_ns(2e6)
    assert successor.transfers.h2d.solo_ns(2e6) == pytest.approx(0.2 * MS, rel=0.01)


def test_a_trainer_that_learned_nothing_writes_nothing(tmp_path: Path) -> None:
    trainer = OnlineTrainer(tmp_path / "cpu.state")
    trainer.train(scheduler(trainer))
    trainer.close()
    assert not (tmp_path / "cpu.state").exists()


def test_a_disk_that_takes_nothing_costs_the_trainer_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = OnlineTrainer(tmp_path / "missing" / "cpu.state")
    run(trainer, scheduler(trainer), 1, exec_ms=15.0)
    with caplog.at_level(logging.WARNING):
        trainer.close()
    assert "cannot be saved to" in caplog.text
    (tmp_path / "missing").mkdir()
    trainer.close()
    assert (tmp_path / "missing" / "cpu.state").exists()
