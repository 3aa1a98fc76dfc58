"""The command line `isochrone`: options in, one call out, errors as one sentence. No command does its work here."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from backend import numerical_threads  # noqa: F401 - before whatever else imports numpy
from backend.commands.evaluate import run_evaluation
from backend.errors import ConfigError, IsochroneError
from backend.server.launch import serve as run_server
from backend.server.options import ServeOptions
from predictor.samples import SamplesError
from profiler.profile_file import ProfileFileError

_SERVER = "127.0.0.1:8001"
"""Where `serve` answers gRPC unless told otherwise."""

app = typer.Typer(
    name="isochrone",
    help="Predictable latency for models that share a device, on NVIDIA Triton Inference Server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    try:
        app()
    except (IsochroneError, SamplesError, ProfileFileError) as error:
        print(f"isochrone: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            version = importlib.metadata.version("isochrone")
        except importlib.metadata.PackageNotFoundError:
            version = "unknown (not installed)"
        typer.echo(f"isochrone {version}")
        raise typer.Exit


@contextmanager
def _extra(command: str, extra: str = "") -> Iterator[None]:
    """Around the imports of a command that needs an extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"`isochrone {command}` needs the module {error.name}, which is missing: "
            f"pip install 'isochrone[{extra or command}]'"
        ) from None


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """With a callback, the app keeps its commands' names even while it has only one."""


@app.command()
def serve(
    model_repository: Annotated[Path, typer.Option(help="Folder of models, laid out as Triton wants it.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="Port of HTTP inference and health.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="Port of gRPC inference.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Port of /metrics.")] = 8002,
    state_port: Annotated[
        int | None, typer.Option(help="Publish the state of the first device here, of the n-th on the n-th next port.")
    ] = None,
    tritonserver: Annotated[
        Path | None, typer.Option(help="The tritonserver binary; default: on PATH, else in the nvidia-pytriton wheel.")
    ] = None,
    extra: Annotated[list[str] | None, typer.Argument(help="After --: options for tritonserver.")] = None,
) -> None:
    """Run a stock tritonserver with this backend in the foreground."""
    code = run_server(
        ServeOptions(
            model_repository=model_repository,
            host=host,
            http_port=http_port,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            state_port=state_port,
            tritonserver=tritonserver,
            extra=tuple(extra or ()),
        )
    )
    raise typer.Exit(code)


@app.command()
def profile(
    model_repository: Annotated[Path, typer.Option(help="Folder of models, laid out as Triton wants it.")],
    model: Annotated[list[str] | None, typer.Option(help="Only this model; may be repeated.")] = None,
    batch_sizes: Annotated[
        str | None, typer.Option(help="Such as 1,2,4,8; default: powers of two up to max_batch_size.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything measured to this file, too.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure anew what profile.json holds already.")] = False,
    seconds: Annotated[float, typer.Option(help="At most this long per model and batch size.")] = 8.0,
    inputs: Annotated[
        Path | None, typer.Option(help="An .npz with an array per input of one request, for the one --model.")
    ] = None,
) -> None:
    """Measure each model alone on its device and write profile.json beside the model."""
    from backend.commands.profile import ProfileOptions  # noqa: PLC0415 - `serve` need not load ONNX Runtime
    from backend.commands.profile import profile as run_profile  # noqa: PLC0415

    options = ProfileOptions(model_repository, tuple(model or ()), batch_sizes, json, again, seconds, inputs)
    raise typer.Exit(run_profile(options))


@app.command()
def emulate(
    gpu: Annotated[str, typer.Option(help="a100, v100, t4 or l4; or several for each model, such as a100,t4.")],
    models: Annotated[str, typer.Option(help="Such as resnet50,bert-base.")],
    repository: Annotated[Path, typer.Option(help="Folder to write the models into.")],
    seed: Annotated[int, typer.Option(min=0, help="Draws the law's factor of each pair of models.")] = 0,
) -> None:
    """Write a repository of models of an EMULATED GPU, which compute nothing."""
    from backend.commands.emulate import emulate as write_emulated  # noqa: PLC0415 - `serve` need not load it

    write_emulated(gpu, models, repository, seed)


@app.command()
def build(
    model: Annotated[Path, typer.Argument(help="An ONNX file, such as models/mine/1/model.onnx.")],
    out: Annotated[Path | None, typer.Option(help="Default: model.plan beside the model.")] = None,
    batch_sizes: Annotated[
        str | None,
        typer.Option(help="Such as 1,2,4,8; default: powers of two up to config.pbtxt's max_batch_size, or 8."),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Bounds of open dimensions, NAME=MIN:OPT:MAX without the batch, such as ids=16:128:512."),
    ] = None,
    precision: Annotated[str, typer.Option(help="model: types as in the file; fp16: lower where faster.")] = "model",
    device: Annotated[int, typer.Option(min=0, help="The GPU to build on and for.")] = 0,
    workspace_mib: Annotated[int | None, typer.Option(min=1, help="Device memory that a layer may work in.")] = None,
    timing_cache: Annotated[Path | None, typer.Option(help="Default: one per GPU in the runtime folder.")] = None,
) -> None:
    """Make a model.plan for this GPU, with a profile per batch size."""
    from backend.commands.build import BuildOptions, run_build  # noqa: PLC0415 - `serve` needs none of it

    shapes = tuple(shape or ())
    run_build(BuildOptions(model, out, batch_sizes, shapes, precision, device, workspace_mib, timing_cache))


@app.command()
def evaluate(
    samples: Annotated[Path, typer.Argument(help="Recorded batches, one JSON object per line.")],
    train_fraction: Annotated[
        float | None, typer.Option(help="Train on this share of the batches, the first by start; 0..1.")
    ] = None,
    train_file: Annotated[Path | None, typer.Option(help="Train on the batches of this file.")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file too.")] = None,
    without_throttled: Annotated[
        bool, typer.Option("--without-throttled", help="Leave out batches of a GPU that heat or power slowed down.")
    ] = False,
) -> None:
    """Test every learner on recorded batches, each predicted before it is learned."""
    run_evaluation(samples, train_fraction, train_file, json_out, without_throttled=without_throttled)


@app.command()
def simulate(  # noqa: PLR0913, PLR0917 - each is an option of the command
    workload: Annotated[Path, typer.Argument(help="JSON: rates, deadlines, classes; docs/reference/file-formats.md.")],
    model_repository: Annotated[Path, typer.Option(help="Folder of the models and their profile.json.")],
    samples: Annotated[
        Path | None, typer.Option(help="Recorded batches to learn the interference from; without: none.")
    ] = None,
    lanes: Annotated[str, typer.Option(help="Such as 2 or 2,3,4.")] = "2",
    load: Annotated[str, typer.Option(help="Factors on all rates, such as 0.5,1,1.5.")] = "1",
    seed: Annotated[int, typer.Option(min=0, help="Of the arrivals and of how batches differ.")] = 1,
    overhead_ms: Annotated[float, typer.Option(help="Around each execution on its lane.")] = 0.0,
    bandwidth_in: Annotated[
        float | None,
        typer.Option(help="GB/s that inputs share on their way to the device; default: no limit."),
    ] = None,
    bandwidth_out: Annotated[float | None, typer.Option(help="The same of outputs on their way back.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the numbers to this file too.")] = None,
) -> None:
    """Ask in virtual time what share of deadlines the scheduler keeps."""
    from backend.commands.simulate import SimulateOptions, run_simulation  # noqa: PLC0415 - `serve` needs none of it

    run_simulation(
        SimulateOptions(
            workload,
            model_repository,
            samples,
            lanes,
            load,
            seed,
            overhead_ms,
            json,
            bandwidth_in=bandwidth_in,
            bandwidth_out=bandwidth_out,
        )
    )


@app.command()
def bench(
    workload: Annotated[Path, typer.Argument(help="JSON: rates, deadlines, classes; docs/reference/file-formats.md.")],
    server: Annotated[
        list[str] | None, typer.Option(help="gRPC address, HOST:PORT or NAME=HOST:PORT; several take turns.")
    ] = None,
    load: Annotated[str, typer.Option(help="Factors on all rates, such as 0.5,1,1.5.")] = "1",
    repeats: Annotated[int, typer.Option(help="Of everything, each with arrivals of its own.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the arrivals.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for figures, every request, and plots.")] = None,
) -> None:
    """Send an open-loop load to running servers and show what share of deadlines each keeps."""
    with _extra("bench", "client"):
        from backend.commands.bench import run_bench  # noqa: PLC0415 - needs tritonclient, an extra
    raise typer.Exit(run_bench(workload, server or [_SERVER], load, repeats, seed, out))


@app.command()
def trace(
    samples: Annotated[Path, typer.Argument(help="Batches recorded with ISOCHRONE_SAMPLES.")],
    out: Annotated[Path, typer.Argument(help="JSON for ui.perfetto.dev or chrome://tracing.")],
) -> None:
    """Show what ran when, on which lane, predicted and measured."""
    from backend.commands.trace import run_trace  # noqa: PLC0415 - `serve` needs none of it

    typer.echo(f"{run_trace(samples, out)} batches in {out}; open it at ui.perfetto.dev")


@app.command()
def explain(
    log: Annotated[Path, typer.Argument(help="Events recorded with ISOCHRONE_EVENTS.")],
    request: Annotated[str | None, typer.Option(help="Explain this one, such as 3.17, as the lists have it.")] = None,
    model: Annotated[str | None, typer.Option(help="List this model's requests.")] = None,
    at: Annotated[str | None, typer.Option(help="List requests around this time, such as 14:03:27.5.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say why a request was launched, held, split, preempted or rejected; without options: an overview."""
    from backend.commands.explain import ExplainOptions, run_explain  # noqa: PLC0415 - `serve` needs none of it

    run_explain(ExplainOptions(log, request, model, at, json))


@app.command()
def report(
    log: Annotated[Path, typer.Argument(help="Events (ISOCHRONE_EVENTS) or samples (ISOCHRONE_SAMPLES).")],
    html: Annotated[Path | None, typer.Option(help="Write one HTML file with plots, too.")] = None,
) -> None:
    """Say what made requests late, who slows whom, and what would help, as Markdown."""
    from backend.commands.report import run_report  # noqa: PLC0415 - `serve` needs none of it

    run_report(log, html)


@app.command()
def route(  # noqa: PLR0913, PLR0917 - each is an option of the command
    endpoints: Annotated[Path, typer.Option(help="JSON or TOML: the servers; docs/reference/file-formats.md.")],
    host: Annotated[str, typer.Option(help="Address to answer on, Envoy and status.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port that Envoy asks.")] = 9010,
    status_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of /metrics and /health.")] = 9011,
    write_envoy_config: Annotated[
        Path | None, typer.Option(help="Write a configuration for Envoy to this file, and end.")
    ] = None,
    envoy_host: Annotated[str, typer.Option(help="Written there: the address that Envoy listens on.")] = "127.0.0.1",
    envoy_http_port: Annotated[int, typer.Option(min=1, max=65535, help="Written there: of HTTP inference.")] = 8000,
    envoy_grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="Written there: of gRPC inference.")] = 8001,
    envoy_admin_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Written there: of Envoy's own statistics, on loopback.")
    ] = None,
) -> None:
    """Pick the server for each request that an Envoy asks about, by predicted interference."""
    with _extra("route"):
        from backend.commands.route import RouteOptions, run_route  # noqa: PLC0415 - needs an extra
        from backend.route_process.envoy_config import Listening  # noqa: PLC0415

    envoy = Listening(envoy_host, envoy_http_port, envoy_grpc_port, envoy_admin_port)
    run_route(RouteOptions(endpoints, host, port, status_port, write_envoy_config, envoy))


@app.command()
def place(
    endpoints: Annotated[Path, typer.Option(help="JSON or TOML: the servers; docs/reference/file-formats.md.")],
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="So long arrivals are counted.")] = 10.0,
    demand: Annotated[
        Path | None, typer.Option(help="JSON: rates, memory and replicas of models; default: as observed.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="JSON: latencies and slowdowns on types of machines, taken up and kept here.")
    ] = None,
    gain: Annotated[float, typer.Option(min=0, help="Share of a server's mean cost that a move has to save.")] = 0.1,
    apply: Annotated[bool, typer.Option("--apply", help="Load and unload; without: a dry run.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the plan to this file, too.")] = None,
) -> None:
    """Plan which models should be on which server, by predicted interference."""
    with _extra("place", "route"):
        from backend.commands.place import PlaceOptions, run_place  # noqa: PLC0415 - needs an extra

    run_place(PlaceOptions(endpoints, seconds, demand, figures, gain, apply, json))


@app.command()
def top(
    state: Annotated[
        str | None, typer.Option(help="HOST:PORT of a device's state; default: ISOCHRONE_STATE_ADDRESS.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
) -> None:
    """Show live what a device runs, what waits for it, and what will be late."""
    from backend.commands.top import run_top  # noqa: PLC0415 - `serve` needs none of it

    run_top(state, once=once)


if __name__ == "__main__":
    main()
