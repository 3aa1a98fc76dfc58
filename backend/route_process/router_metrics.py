"""The router's metrics and health, for Prometheus and probes, on an HTTP port of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

disable_created_metrics()  # type: ignore[no-untyped-call]
PICK_BUCKETS_US = (20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000)


class RouterMetrics:
    """All metrics of one router."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.picks = self._counter("picks", "Requests by the endpoint that they were sent to first.", "endpoint")
        self.answered = self._counter("answered", "Picked requests that Envoy has told the end of.")
        self.refused = self._counter("refused", "Requests that the router answered itself, by HTTP status.", "status")
        self.left = self._counter("left_to_envoy", "Requests left to Envoy's own balancing.", "reason")
        self.pick_us = Histogram(
            "isochrone_route_pick_us",
            "Time of a pick in microseconds.",
            buckets=PICK_BUCKETS_US,
            registry=self.registry,
        )
        self.up = self._gauge("endpoint_up", "1 where the endpoint takes requests.", "endpoint")
        self.backlog_ms = self._gauge("backlog_ms", "Predicted time to drain, as last published.", "endpoint", "device")
        self.age_s = self._gauge("snapshot_age_seconds", "Time since a device's last snapshot.", "endpoint", "device")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"isochrone_route_{name}_total", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"isochrone_route_{name}", text, labels, registry=self.registry)


class StatusServer:
    """Answers /metrics, /health/live, and /health/ready, which is 503 while no endpoint takes requests.

    refresh: called before the metrics are read; is_ready: in another thread, so it must only look.
    """

    def __init__(
        self, host: str, port: int, metrics: RouterMetrics, refresh: Callable[[], None], is_ready: Callable[[], bool]
    ) -> None:
        class _Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = 200, b""
                if self.path == "/metrics":
                    refresh()
                    body = generate_latest(metrics.registry)
                elif self.path == "/health/ready":
                    status = 200 if is_ready() else 503
                elif self.path != "/health/live":
                    status = 404
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        class _Listener(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Log nothing of one who left before the answer."""

        self._server = _Listener((host, port), _Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="status", daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
