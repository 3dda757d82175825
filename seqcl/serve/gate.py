"""What every request passes first: the name of the host, the key, the limit of its body, and the counters."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import time
from collections.abc import Collection
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_SECONDS = 20
"""Time that a client has to send its body."""
OPEN = ("/", "/health")
"""What needs no key, besides the files of the page: nothing of a model is in them."""
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: https: http:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Counters:
    """The figures of /metrics, of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "seqcl_requests", "Requests that were answered", ["method", "path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "seqcl_request_seconds",
            "Seconds from the first byte of a request to its answer",
            ["path"],
            registry=self.registry,
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
        )
        self.together = Histogram(
            "seqcl_histories_per_call",
            "Histories that one call of a model answered",
            ["model"],
            registry=self.registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
        )
        self.models = Gauge("seqcl_model_items", "Items of each model", ["model"], registry=self.registry)


class Gate:
    """An ASGI application around another one.

    Args:
        app: the other one.
        counters: are told of every request.
        key: the key that requests bring as `Authorization: Bearer KEY`; None: none is needed.
        hosts: what requests may call this server, without a port; None: anything.
        most_bytes: of a body.
    """

    def __init__(
        self, app: ASGIApp, *, counters: Counters, key: str | None, hosts: Collection[str] | None, most_bytes: int
    ) -> None:
        self.app, self.counters, self.most_bytes = app, counters, most_bytes
        self.key = None if key is None else key.encode()
        self.hosts = None if hosts is None else {host.encode() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        try:
            if not self.meant(scope):
                await refuse(
                    noted, 403, "without a key this server answers at localhost alone: start it with --key-file"
                )
                return
            if not self.allowed(scope):
                await refuse(noted, 401, "this server wants a key: Authorization: Bearer KEY", wants=b"Bearer")
                return
            try:
                body = await asyncio.wait_for(self.body(scope, receive), BODY_SECONDS)
            except asyncio.TimeoutError:
                await refuse(noted, 408, f"the body did not come within {BODY_SECONDS} s")
                return
            if body is None:
                await refuse(noted, 413, f"the body is larger than {self.most_bytes:,} bytes")
                return
            await self.app(scope, replayed(body, receive), noted)
        finally:
            path = getattr(scope.get("route"), "path", "other")  # one of few, whatever a client asks for
            method = scope["method"] if scope["method"] in ("GET", "POST", "PUT", "HEAD") else "other"
            self.counters.requests.labels(method, path, status).inc()
            self.counters.seconds.labels(path).observe(time.perf_counter() - started)

    def meant(self, scope: Scope) -> bool:
        """True if a request calls this server by a name of its own: the page of another site may lead its name here."""
        return self.hosts is None or re.sub(rb":\d*$", b"", header(scope, b"host").lower()) in self.hosts

    def allowed(self, scope: Scope) -> bool:
        """True if a request has the key, or needs none."""
        if self.key is None or scope["path"] in OPEN or scope["path"].startswith("/page/"):
            return True
        scheme, _, given = header(scope, b"authorization").partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self.key)

    async def body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body of a request; None if it is too large, of which no more is read than shows it."""
        told = header(scope, b"content-length")
        if told.isdigit() and int(told[:20]) > self.most_bytes:
            return None
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
            if size > self.most_bytes:
                return None
        return b"".join(parts)


def header(scope: Scope, wanted: bytes) -> bytes:
    """The first header of a name in small letters; empty if there is none."""
    return next((value for name, value in scope["headers"] if name == wanted), b"")


def replayed(body: bytes, receive: Receive) -> Receive:
    """A channel that gives the body once, then what else comes."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def refuse(send: Any, status: int, text: str, *, wants: bytes = b"") -> None:
    """Send an error as JSON."""
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    headers += [(b"www-authenticate", wants)] if wants else []
    content = json.dumps({"error": text}).encode()
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"content-length", str(len(content)).encode())]})  # fmt: skip
    await send({"type": "http.response.body", "body": content})
