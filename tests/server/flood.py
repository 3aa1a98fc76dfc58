"""A client process that sends as fast as answers return, over several connections, and checks each answer's numbers.

Prints one JSON object. Run as `python -m tests.server.flood`; a process of its own keeps its work out of the test's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import onnx
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.server.harness import mlp_answer

ANSWER_WITHIN_S = 60.0  # a request without an answer after so long hangs


@dataclass
class Target:
    """A model, the rows sent to it and the rows it answered; row i belongs to request i."""

    name: str
    model: onnx.ModelProto
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    answered: npt.NDArray[np.int64]


@dataclass
class Flood:
    """What happened. wrong: answers that are not the model's for what was sent."""

    outcomes: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)

    async def connection(self, url: str, in_flight: int, work: list[tuple[Target, int]]) -> None:
        async with grpc.aio.insecure_channel(url) as channel:
            await channel.channel_ready()
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

            async def one_after_another() -> None:
                while work:
                    target, row = work.pop()
                    await self._ask(stub, target, row)

            await asyncio.gather(*(one_after_another() for _ in range(in_flight)))

    async def _ask(self, stub: Any, target: Target, row: int) -> None:
        request_id = f"{target.name}-{row}"
        began = time.monotonic()
        try:
            answer = await stub.ModelInfer(_request(target, row, request_id), timeout=ANSWER_WITHIN_S)
        except grpc.aio.AioRpcError as error:
            self.outcomes[f"{error.code().name}: {error.details()}"] += 1
            return
        assert answer.id == request_id, (answer.id, request_id)
        target.y[row] = np.frombuffer(answer.raw_output_contents[0], np.float32)
        target.answered[row] += 1
        self.outcomes["answered"] += 1
        self.latencies_ms.append((time.monotonic() - began) * 1e3)


def _request(target: Target, row: int, request_id: str) -> Any:
    infer_input = service_pb2.ModelInferRequest.InferInputTensor
    return service_pb2.ModelInferRequest(
        model_name=target.name,
        id=request_id,
        inputs=[infer_input(name="x", datatype="FP32", shape=[1, target.x.shape[1]])],
        raw_input_contents=[target.x[row].tobytes()],
    )


def _target(repository: Path, name: str, requests: int, seed: int) -> Target:
    model = onnx.load(repository / name / "1" / "model.onnx")
    width = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    x = np.random.default_rng(seed).standard_normal((requests, width)).astype(np.float32)
    return Target(name, model, x, np.zeros_like(x), np.zeros(requests, np.int64))


def _wrong(target: Target) -> int:
    got = target.answered > 0
    expected = mlp_answer(target.model, target.x[got])
    return int((~np.isclose(target.y[got], expected, rtol=1e-3, atol=1e-4).all(axis=1)).sum())


async def _run(options: argparse.Namespace) -> dict[str, Any]:
    names = options.models
    targets = [_target(options.repository, name, options.requests // len(names), options.seed) for name in names]
    work = [(target, row) for row in range(options.requests // len(names)) for target in targets]
    flood, began = Flood(), time.monotonic()
    shares = [work[i :: options.connections] for i in range(options.connections)]
    await asyncio.gather(*(flood.connection(options.url, options.in_flight, share) for share in shares))
    return {
        "outcomes": flood.outcomes,
        "answered_twice": int(sum((t.answered > 1).sum() for t in targets)),
        "wrong": sum(map(_wrong, targets)),
        "seconds": time.monotonic() - began,
        "latency_ms": dict(zip(("p50", "p99", "max"), np.percentile(flood.latencies_ms, [50, 99, 100]), strict=True)),
    }


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--in-flight", type=int, required=True, help="requests per connection")
    parser.add_argument("--seed", type=int, required=True, help="another one, other inputs")
    json.dump(asyncio.run(_run(parser.parse_args(argv))), sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
