"""`isochrone evaluate`: a samples file in, a table and JSON out. The protocol itself is `predictor.evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from backend.commands.json_file import write_result
from backend.errors import ConfigError
from backend.progress_bar import console
from predictor.evaluate import SETTLED, Evaluation, Score, evaluate, split
from predictor.samples import Sample, Samples, read_samples


def run_evaluation(
    path: Path,
    train_fraction: float | None,
    train_file: Path | None,
    json_out: Path | None,
    *,
    without_throttled: bool = False,
) -> None:
    """Shows and writes the evaluation. Raises ConfigError or SamplesError on options or files that cannot be used."""
    if train_fraction is not None and train_file is not None:
        raise ConfigError("--train-fraction and --train-file exclude each other: give one")
    if train_fraction is not None and not 0.0 <= train_fraction < 1.0:
        raise ConfigError(f"--train-fraction must lie in 0..1, got {train_fraction}")
    if json_out is not None and json_out.exists() and any(f and json_out.samefile(f) for f in (path, train_file)):
        raise ConfigError(f"--json {json_out} holds samples; name another file for the numbers")
    samples = _read(path, without_throttled=without_throttled)
    features, training, tested = samples.features, list[Sample](), list(samples.samples)
    if train_fraction is not None:
        training, tested = map(list, split(samples, train_fraction))
    elif train_file is not None:
        others = _read(train_file, without_throttled=without_throttled)
        training, features = list(others.samples), tuple(f for f in features if f in others.features)
    missing = tuple(dict.fromkeys([*samples.missing, *(f for f in samples.features if f not in features)]))
    evaluation = evaluate(tested, features, training)
    if json_out is not None:
        write_result(json_out, evaluation)
    _show(path, evaluation, training, missing)


def _read(path: Path, *, without_throttled: bool) -> Samples:
    found = read_samples(path)
    if not without_throttled:
        return found
    left = found.without_throttled()
    if not left.samples:
        raise ConfigError(
            f"--without-throttled leaves nothing of {path}: all {len(found.samples)} batches were throttled"
        )
    return left


def _show(path: Path, evaluation: Evaluation, training: Sequence[Sample], missing: tuple[str, ...]) -> None:
    out = console()
    trained = f", after {len(training)} to train on" if training else ""
    out.print(
        f"{path}: {evaluation.samples} batches tested{trained}; features: {_list(evaluation.features)}", soft_wrap=True
    )
    if evaluation.throttled:
        out.print(f"while the device's clocks were throttled: {evaluation.throttled} of them", soft_wrap=True)
    if missing:
        out.print(f"not in every sample, so not used: {_list(missing)}", soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("learner", no_wrap=True)
    for column in ("MSE", "MAPE", f">{SETTLED}", "p50", "p75", "p95", "held", "×", "µs"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, score in evaluation.learners.items():
        table.add_row(name, *_row(score))
    out.print(table)
    out.print("MSE of slowdown; errors of execution time and what the 95 % bound held, in %", soft_wrap=True)
    out.print("×: bound / predicted; µs: predict (median) + learn (mean)", soft_wrap=True)


def _row(score: Score) -> list[str]:
    errors = (
        score.mape,
        score.mape_after_500,
        score.relative_error_p50,
        score.relative_error_p75,
        score.relative_error_p95,
    )
    cost = f"{score.predict_us_p50:.0f} + {score.learn_us_mean or 0.0:.0f}"
    shown = ["–" if error is None else f"{100 * error:.1f}" for error in errors]
    return [f"{score.mse:.4f}", *shown, f"{100 * score.coverage:.1f}", f"{score.inflation:.2f}", cost]


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
