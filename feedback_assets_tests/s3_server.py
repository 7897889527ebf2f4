"""A real S3 API over HTTP for the tests: moto's, behind a server that can fail at a chosen request.

The server keeps the two promises of S3 that moto does not: of two conditional puts at once one wins, and a body that
breaks off is no object.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest

FAULTS = ("refused", "unanswered", "answer-lost", "cut-off")
"""503; no answer and nothing done; done, but no answer; the connection breaks in the middle of the body that is sent,
or of the one that comes."""
HANG = 0.4  # seconds; longer than the timeout of the tests


class Request(NamedTuple):
    """A request: `number` counts from 1."""

    method: str
    path: str
    number: int


class Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hung up first is no news."""


class Server:
    """`url` for AWS_ENDPOINT_URL; `requests` are those since it is `watched`, or `failing`."""

    def __init__(self) -> None:
        from moto.backends import get_backend
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.moto_server.werkzeug_app import create_backend_app

        self._moto = create_backend_app("s3")
        self._held = get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]
        self.requests: list[Request] = []
        self.fails = _none_fails
        self.ignores_conditions = False
        self._counting, self._writing = threading.Lock(), threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each answer waits for an acknowledgement

            def handle_any(self) -> None:
                server._serve(self)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

            def log_message(self, *_: object) -> None: ...

        self.http = Http(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def name_in(self, environment: pytest.MonkeyPatch) -> None:
        """Name this server, and no other, where programs look for it."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            environment.delenv(name)
        environment.setenv("AWS_ENDPOINT_URL", self.url)
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")

    def bucket(self, name: str) -> str:
        """A bucket of this name."""
        if name not in self._held.buckets:
            self._held.create_bucket(name, "us-east-1")
        return name

    def put(self, path: str, data: bytes) -> None:
        """Put an object as another program would: `path` is bucket/key."""
        self._held.put_object(*path.split("/", 1), data)

    def remove(self, path: str) -> None:
        """Remove an object."""
        self._held.delete_object(*path.split("/", 1))

    def keep_versions(self, bucket: str, status: str) -> None:
        """Let a bucket keep old versions ("Enabled"), or not of what comes from now on ("Suspended")."""
        self._held.put_bucket_versioning(bucket, status)

    def empty(self) -> None:
        """Remove everything but the buckets."""
        for bucket in self._held.buckets.values():
            bucket.keys.clear()

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Every object of a bucket."""
        held = self._held.buckets[bucket].keys
        return {key: found.value for key, found in held.items() if hasattr(found, "value")}

    @contextmanager
    def failing(self, fails: Callable[[Request], str | None]) -> Iterator[None]:
        """Requests are counted anew; `fails` names the fault that one gets, or None."""
        with self._counting:
            self.requests, self.fails = [], fails
        try:
            yield
        finally:
            self.fails = _none_fails

    def watched(self) -> AbstractContextManager[None]:
        """Requests are counted anew."""
        return self.failing(_none_fails)

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        with self._counting:
            self.requests.append(Request(handler.command, handler.path, len(self.requests) + 1))
            fault = self.fails(self.requests[-1])
        length = int(handler.headers.get("Content-Length") or 0)
        if fault == "cut-off" and length > 1:
            handler.rfile.read(length // 2)
            return self._hang_up(handler)
        body = handler.rfile.read(length)
        if len(body) < length:
            return self._hang_up(handler)
        if fault == "refused":
            return self._answer(handler, 503, {}, b"<Error><Code>SlowDown</Code></Error>")
        if fault == "unanswered":
            time.sleep(HANG)
            return self._hang_up(handler)
        status, headers, data = self._of_moto(handler, body)
        if fault == "answer-lost":
            time.sleep(HANG)
            return self._hang_up(handler)
        return self._answer(handler, status, headers, data, half=fault == "cut-off")

    def _of_moto(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        from werkzeug.test import EnvironBuilder, run_wsgi_app

        headers = dict(handler.headers.items())
        if self.ignores_conditions:
            headers = {name: value for name, value in headers.items() if name.lower() != "if-none-match"}
        asked = EnvironBuilder(handler.path, self.url, method=handler.command, headers=headers, data=body)
        with self._writing if handler.command in ("PUT", "POST") else nullcontext():
            data, status, told = run_wsgi_app(self._moto, asked.get_environ(), buffered=True)
        return int(status.split()[0]), dict(told), b"".join(data)

    def _answer(self, handler, status: int, headers: dict[str, str], data: bytes, *, half: bool = False) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                handler.send_header(name, value)
        length = next((value for name, value in headers.items() if name.lower() == "content-length"), str(len(data)))
        head = handler.command == "HEAD"
        handler.send_header("Content-Length", length if head else str(len(data)))
        handler.end_headers()
        data = b"" if head else data
        handler.wfile.write(data[: len(data) // 2] if half else data)
        if half:
            self._hang_up(handler)

    def _hang_up(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True


def _none_fails(_: Request) -> str | None:
    return None


@contextmanager
def server() -> Iterator[Server]:
    """A running server, gone afterwards."""
    running = Server()
    thread = threading.Thread(target=running.http.serve_forever, daemon=True)
    thread.start()
    yield running
    running.http.shutdown()
    running.http.server_close()
    thread.join()
