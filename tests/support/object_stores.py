"""An S3 server of one's own, and a proxy in front of it that fails as networks do."""

from __future__ import annotations

import http.client
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

BUCKET = "bucket"


@contextmanager
def s3_server() -> Iterator[str]:
    """Run moto's server with an empty bucket, and give its URL."""
    pytest.importorskip("obstore")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    try:
        url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
        request(url, "PUT", f"/{BUCKET}")
        yield url
    finally:
        server.stop()


@contextmanager
def s3_environment(endpoint: str) -> Iterator[None]:
    """Let URLs mean that server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "its-key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "its-secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_ALLOW_HTTP", "true")
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield


def s3_settings() -> dict[str, str]:
    """Return what this process's environment says of S3, for others."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def fresh_url() -> str:
    """Return a place in the bucket that nobody has used: all servers of a process share theirs."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/run.zarr"


def request(
    url: str, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send a request and return status, headers and body of its reply."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        reply = connection.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read()
    finally:
        connection.close()


class Outage:
    """A fault of a proxy that lasts for some seconds, from the first request that meets it."""

    def __init__(self, fault: str) -> None:
        self._fault = fault
        self._seconds: float | None = None
        self._end = float("-inf")

    def begin(self, seconds: float) -> None:
        """Let the next request fail, and all that come within so many seconds."""
        self._seconds = seconds

    def __call__(self, number: int, method: str) -> str:
        """Return what is to become of a request."""
        if self._seconds is not None:
            self._end, self._seconds = time.monotonic() + self._seconds, None
        return self._fault if time.monotonic() < self._end else ""


class FailingProxy:
    """Passes requests on, and lets some of them fail.

    Parameters
    ----------
    url
        The server behind it.
    fault
        Called with the number of a request, from 1, and its method. It returns ``""``;
        ``"busy"`` to answer 503 without doing it; ``"done, busy"`` to do it and answer 503;
        ``"done, lost"`` to do it and close the connection; ``"refused"`` to close it at once;
        ``"stalled"`` to accept it and never answer; or ``"cut"`` to end halfway through the answer.
    """

    def __init__(self, url: str, fault: Callable[[int, str], str]) -> None:
        self.faults: list[str] = []
        self._behind = url
        self._fault = fault
        self._lock = threading.Lock()
        self._requests = 0
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FailingProxy:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def next_fault(self, method: str) -> str:
        """Return what is to become of the next request."""
        with self._lock:
            self._requests += 1
            fault = self._fault(self._requests, method)
            if fault:
                self.faults.append(fault)
            return fault

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body are sent one after the other: a body would wait 40 ms for its turn.
            disable_nagle_algorithm = True

            def handle_request(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fault = proxy.next_fault(self.command)
                reply: tuple[int, dict[str, str], bytes] = (503, {}, b"busy")
                if fault in ("refused", "stalled"):
                    self.close_connection = True
                    if fault == "stalled":
                        proxy._ended.wait(60)
                    return
                if fault != "busy":
                    passed_on = (self.command, self.path, body, dict(self.headers))
                    reply = request(proxy._behind, *passed_on)
                if fault == "done, lost":
                    self.close_connection = True
                    return
                if fault == "cut":
                    self.close_connection = True
                    self.answer(*reply, sent=len(reply[2]) // 2)
                    return
                self.answer(*((503, {}, b"busy") if fault else reply))

            def answer(
                self, status: int, headers: dict[str, str], body: bytes, sent: int | None = None
            ) -> None:
                self.send_response(status)
                kept = {"Content-Length": str(len(body))} if self.command != "HEAD" else {}
                lost = ("Transfer-Encoding", "Connection", "Date", "Server", *kept)
                for name, value in (headers | kept).items():
                    if name in kept or name not in lost:
                        self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body[:sent])

            def log_message(self, *arguments: object) -> None:
                pass

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_request

        return Handler
