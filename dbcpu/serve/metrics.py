"""Figures for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from dbcpu.serve.keeping import Keeping
    from dbcpu.serve.line import Job, Line
    from dbcpu.serve.upload import Room
    from dbcpu.serve.work import PageDone

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """All figures of one server.

    Args:
        line: whose length is told.
        keeping: whose size is told.
        room: whose size is told.
    """

    def __init__(self, line: Line, keeping: Keeping, room: Room) -> None:
        self._registry = registry = CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Counter(
            "dbcpu_requests", "Requests by route and status.", ["method", "route", "status"], registry=registry
        )
        self._latency = Histogram(
            "dbcpu_request_seconds", "From headers to the end of the response.", ["route"], registry=registry,
            buckets=_BUCKETS,
        )  # fmt: skip
        self._stages = Histogram(
            "dbcpu_stage_seconds",
            "Time in the queue for each file, in the other stages for each page.",
            ["stage"],
            registry=registry,
            buckets=_BUCKETS,
        )
        self._pages = Counter("dbcpu_pictures", "Pages that results were made for.", registry=registry)
        self._instances = Counter("dbcpu_instances", "Text instances found.", registry=registry)
        self._failures = Counter("dbcpu_failures", "Files without a result.", ["problem"], registry=registry)
        for name, text, value in (
            ("dbcpu_queue_depth", "Files that wait for a worker.", lambda: line.waiting),
            ("dbcpu_running", "Files that workers are at.", lambda: line.running),
            ("dbcpu_worker_deaths", "Worker processes that died or were killed.", lambda: line.deaths),
            ("dbcpu_body_bytes", "Bodies of requests that are not answered yet.", lambda: room.taken),
            ("dbcpu_kept_bytes", "Pictures and maps that are kept for sessions.", lambda: keeping.size),
        ):
            Gauge(name, text, registry=registry).set_function(value)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that has its response."""
        self._requests.labels(method, route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def begun(self, job: Job) -> None:
        """Count what a file waited."""
        if job.waited is not None:
            self._stages.labels("queue").observe(job.waited)

    def page(self, done: PageDone) -> None:
        """Count a page."""
        for stage, seconds in done.seconds.items():
            self._stages.labels(stage).observe(seconds)
        self._pages.inc()
        self._instances.inc(done.instances)

    def failure(self, slug: str) -> None:
        """Count a file without a result."""
        self._failures.labels(slug).inc()

    def text(self) -> bytes:
        """Return everything in the text format of Prometheus."""
        return generate_latest(self._registry)
