"""A client process that sends broken requests, by tritonclient and by hand, and judges each answer.

Prints one JSON object. Run as `python -m tests.server.malformed.sender`; a process of its own keeps its work out of the
good traffic's.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from tests.server.malformed.asked import DTYPES, Arrays, Asked, Expected
from tests.server.malformed.transport_faults import Case, ClientCase, GrpcCase, HttpCase, cases

ANSWER_WITHIN_S = 15.0
"""A request without an answer after so long hangs."""
SENTENCE_CHARS_MAX = 500
"""Of this backend's own; Triton's quote whole names."""
_OURS = re.compile(r"(?:\[request id: .*?\] )?model '", re.DOTALL)
URL_CHARS_MAX = 8_000
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_BUG = re.compile(r"Traceback|could not be (?:read|queued): |object at 0x")


@dataclass(frozen=True)
class Reply:
    """status: "ok", "refused", "refused by the client", "closed" or "none" within the time that it may take."""

    status: str
    code: str = ""
    sentence: str = ""
    answer: Arrays | None = None


def fault(case: Case, reply: Reply) -> str | None:
    """What is wrong with a reply, None where it is as it must be."""
    allowed: Expected = case.expected
    if reply.status == "ok":
        if allowed.answer is None:
            return "answered, but must be refused" if allowed.sure else None
        return _difference(allowed.answer, reply.answer or {}, allowed.sure)
    if reply.status == "none":
        return "no answer"
    if reply.status == "closed":
        return None if _may_close(case) else "the connection was closed without an answer"
    if reply.status == "refused by the client":
        return "tritonclient refuses a right request" if case.what == "right" else None
    return _fault_of_sentence(reply.sentence) or (
        "refused, but must be answered" if allowed.answer is not None and allowed.sure else None
    )


def _fault_of_sentence(sentence: str) -> str | None:
    if not sentence.strip():
        return "refused without a sentence"
    if (ours := _OURS.match(sentence)) and len(sentence) - ours.end() > SENTENCE_CHARS_MAX:
        return f"a sentence of {len(sentence) - ours.end()} characters"
    return "a bug in a sentence's place" if _BUG.search(sentence) else None


def _may_close(case: Case) -> bool:
    """True where the client closed first, or where Triton's HTTP server finds the first line too long."""
    if isinstance(case, HttpCase):
        return case.closes or len(case.path) > URL_CHARS_MAX
    name = case.asked.model + case.asked.version
    over_http = isinstance(case, ClientCase) and case.protocol == "http"
    return over_http and (len(name) > URL_CHARS_MAX / 9 or not name.isprintable() or " " in name)  # tritonclient's URL


def _difference(right: Arrays, given: Arrays, sure: bool) -> str | None:
    for name, array in right.items():
        got = given.get(name)
        if got is None:
            return f"output '{name}' is missing" if sure else None
        if not sure and got.dtype == object != array.dtype:  # classification
            continue
        got = _as_bytes(got)
        same = np.array_equal(got, array) if array.dtype != np.float32 else _close(got, array)
        if got.shape != array.shape or not same:
            return f"output '{name}' is wrong: {got!r:.200} in the place of {array!r:.200}"
    return None


def _as_bytes(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Text that came as JSON, as it comes in binary."""
    if array.dtype != object:
        return array
    encoded = array.copy()
    encoded.ravel()[:] = [item.encode() if isinstance(item, str) else item for item in array.ravel().tolist()]
    return encoded


def _close(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)


class Sender:
    """One connection of each kind."""

    def __init__(self, http_url: str, grpc_url: str) -> None:
        self._address = http_url.rsplit(":", 1)
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(grpc_url, options=options)
        self._infer = self._channel.unary_unary(_INFER)
        self._http = triton_http.InferenceServerClient(http_url, network_timeout=ANSWER_WITHIN_S)
        self._grpc = triton_grpc.InferenceServerClient(grpc_url)

    def reply(self, case: Case) -> Reply:
        """Send it and wait."""
        if isinstance(case, GrpcCase):
            return self._by_grpc(case)
        return self._by_http(case) if isinstance(case, HttpCase) else self._by_client(case)

    def close(self) -> None:
        self._channel.close()
        self._http.close()
        self._grpc.close()

    def _by_grpc(self, case: GrpcCase) -> Reply:
        try:
            body = self._infer(case.body, timeout=ANSWER_WITHIN_S)
        except grpc.RpcError as error:
            return _refused_by_grpc(error.code().name, error.details())
        return Reply("ok", answer=_arrays(triton_grpc.InferResult(service_pb2.ModelInferResponse.FromString(body))))

    def _by_http(self, case: HttpCase) -> Reply:
        headers = dict(case.headers)
        headers.setdefault("Content-Length", str(len(case.body)))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"{case.method} {case.path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n"
        host, port = self._address
        with socket.create_connection((host, int(port)), timeout=ANSWER_WITHIN_S) as connection:
            try:
                connection.sendall(head.encode("latin-1", "replace") + case.body)
                if case.closes:
                    connection.shutdown(socket.SHUT_WR)
                response = HTTPResponse(connection, method=case.method)
                response.begin()
                body = response.read()
            except TimeoutError:
                return Reply("none")
            except (HTTPException, OSError) as error:
                return Reply("closed", sentence=repr(error))
        if response.status != 200:
            return Reply("refused", str(response.status), _said(body) or response.reason)
        if case.expected.answer is None:
            return Reply("ok", sentence=body[:300].decode("latin-1"))
        length = response.headers.get("Inference-Header-Content-Length")
        result = triton_http.InferenceServerClient.parse_response_body(
            body, header_length=int(length) if length else None
        )
        return Reply("ok", answer=_arrays(result))

    def _by_client(self, case: ClientCase) -> Reply:
        module, client = (triton_http, self._http) if case.protocol == "http" else (triton_grpc, self._grpc)
        try:
            inputs, outputs = _inputs(module, case.asked), _outputs(module, case.asked)
            more = {"client_timeout": ANSWER_WITHIN_S} if case.protocol == "grpc" else {}
            result = client.infer(
                case.asked.model,
                inputs,
                model_version=case.asked.version,
                outputs=outputs or None,
                request_id=case.asked.id,
                parameters=case.asked.parameters or None,
                **more,
            )
        except InferenceServerException as error:
            if error.status() is None:
                return Reply("refused by the client", sentence=str(error))
            return _refused_by_grpc(str(error.status()).removeprefix("StatusCode."), str(error.message()))
        except TimeoutError:
            return Reply("none")
        except (ValueError, TypeError, OverflowError, KeyError, AttributeError, UnicodeError) as error:
            return Reply("refused by the client", sentence=repr(error))
        except Exception as error:
            if (
                isinstance(error, OSError)
                or type(error).__name__ == "HTTPConnectionClosed"
                or isinstance(error.__context__, OSError)
            ):
                return Reply("closed", sentence=repr(error))
            raise
        return Reply("ok", answer=_arrays(result))


def _said(body: bytes) -> str:
    """The sentence of an error of the HTTP protocol; where Triton speaks no JSON, all that it says."""
    text = body.decode("utf-8", "replace")
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text


def _refused_by_grpc(code: str, sentence: str) -> Reply:
    if code == "DEADLINE_EXCEEDED":
        return Reply("none")
    return Reply("closed" if code == "UNAVAILABLE" and "model '" not in sentence else "refused", code, sentence)


def _inputs(module: Any, asked: Asked) -> list[Any]:
    inputs = []
    for tensor in asked.inputs:
        one = module.InferInput(tensor.name, tensor.shape, tensor.datatype)
        region = tensor.parameters.get("shared_memory_region")
        if region is not None:
            size, offset = (tensor.parameters[f"shared_memory_{key}"] for key in ("byte_size", "offset"))
            one.set_shared_memory(region, size, offset)
        elif tensor.datatype in DTYPES and len(tensor.data) % 8 == 0:
            array = np.frombuffer(tensor.data, DTYPES[tensor.datatype])
            one.set_shape([len(array)])
            one.set_data_from_numpy(array)
            one.set_shape(tensor.shape)
        else:
            one._raw_content = one._raw_data = tensor.data  # what no array of numpy becomes
            if module is triton_http:
                one._parameters["binary_data_size"] = len(tensor.data)
        inputs.append(one)
    return inputs


def _outputs(module: Any, asked: Asked) -> list[Any]:
    outputs = []
    for name, parameters in asked.outputs:
        outputs.append(module.InferRequestedOutput(name, class_count=parameters.get("classification", 0)))
        if "shared_memory_region" in parameters:
            outputs[-1].set_shared_memory(parameters["shared_memory_region"], parameters["shared_memory_byte_size"])
    return outputs


def _arrays(result: Any) -> Arrays:
    response = result.get_response()
    names = (
        [o["name"] for o in response["outputs"]] if isinstance(response, dict) else [o.name for o in response.outputs]
    )
    return {name: result.as_numpy(name) for name in names}


@dataclass
class Account:
    """What became of the requests. faults: with what was sent and what came."""

    sent: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    sentences: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def note(self, case: Case, reply: Reply, seconds: float) -> None:
        self.sent += 1
        by = type(case).__name__.removesuffix("Case").lower()
        self.outcomes[f"{by} {reply.status} {reply.code}".strip()] += 1
        for kind in case.what.split(" + "):
            self.kinds[" ".join(kind.split()[:2])] += 1
        self.sentences[re.sub(r"\d+", "#", reply.sentence)[:160]] += reply.status.startswith("refused")
        self.slowest_s = max(self.slowest_s, seconds)
        if wrong := fault(case, reply):
            shown = {**vars(case), "expected": case.expected.answer is not None}
            self.faults.append(f"{wrong}: {reply.code} {reply.sentence[:400]} {reply.answer!r:.200}; {shown!r:.1500}")


def run(http_url: str, grpc_url: str, work: Iterator[tuple[int, Case]], at_once: int, rate_per_s: float) -> Account:
    """Send these, over so many connections, no more than so many a second."""
    account, lock = Account(), threading.Lock()
    began = time.monotonic()

    def one_after_another() -> None:
        sender = Sender(http_url, grpc_url)
        try:
            while (turn := _next(work, lock)) is not None:
                number, case = turn
                time.sleep(max(0.0, began + number / rate_per_s - time.monotonic()))
                asked_s = time.monotonic()
                try:
                    reply = sender.reply(case)
                except Exception:
                    with lock:
                        account.faults.append(f"the sender failed: {traceback.format_exc()}; {vars(case)!r:.1500}")
                    continue
                with lock:
                    account.note(case, reply, time.monotonic() - asked_s)
        finally:
            sender.close()

    threads = [threading.Thread(target=one_after_another) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return account


def _next(work: Iterator[tuple[int, Case]], lock: threading.Lock) -> tuple[int, Case] | None:
    with lock:
        return next(work, None)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--http-url", required=True)
    parser.add_argument("--grpc-url", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second, at most")
    parser.add_argument("--broken-share", type=float, default=0.9)
    options = parser.parse_args(argv)
    work = enumerate(cases(options.seed, options.count, options.broken_share))
    account = run(options.http_url, options.grpc_url, work, options.at_once, options.rate)
    json.dump({**vars(account), "faults": account.faults[:200], "faults_in_all": len(account.faults)}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
