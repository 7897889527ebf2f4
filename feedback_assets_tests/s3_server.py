"""A real S3 API over HTTP for the tests: moto's, behind a proxy that can fail at a chosen request.

The proxy keeps the two promises of S3 that moto does not: of two conditional puts at once one wins, and a body that
breaks off is no object.
"""

import http.client
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import quote

FAULTS = ("refused", "unanswered", "answer-lost", "cut-off")
"""503; no answer and nothing done; done, but no answer; the connection breaks in the middle of the body that is sent,
or of the one that comes."""
HANG = 0.4  # seconds; longer than the timeout of the tests


class Request(NamedTuple):
    """A request: `number` counts from 1."""

    method: str
    path: str
    number: int


class Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hung up first is no news."""


class Server:
    """`url` for AWS_ENDPOINT_URL; `requests` are those since it is `watched`, or `failing`."""

    def __init__(self, moto_port: int) -> None:
        self.moto_port = moto_port
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

        self.http = Proxy(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def bucket(self, name: str) -> str:
        """Make a bucket."""
        self.put(name, b"")
        return name

    def put(self, path: str, data: bytes) -> None:
        """Put an object as another program would: `path` is bucket/key."""
        self._ask("PUT", path, data)

    def remove(self, path: str) -> None:
        """Remove an object."""
        self._ask("DELETE", path)

    def keep_versions(self, bucket: str, status: str) -> None:
        """Let a bucket keep old versions ("Enabled"), or not of what comes from now on ("Suspended")."""
        told = f"<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>"
        self._ask("PUT", f"{bucket}?versioning", told.encode())

    def _ask(self, method: str, path: str, data: bytes | None = None) -> None:
        url = f"http://127.0.0.1:{self.moto_port}/{quote(path, safe='/?')}"
        request = urllib.request.Request(url, data, method=method)
        request.add_header("Content-Type", "application/octet-stream")
        # moto looks who asks, and believes it.
        credential = "Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=none"
        request.add_header("Authorization", f"AWS4-HMAC-SHA256 {credential}")
        urllib.request.urlopen(request).close()

    def empty(self) -> None:
        """Remove everything but the buckets."""
        from moto.backends import get_backend

        for backend in get_backend("s3").values():
            for partition in backend.values():
                for bucket in partition.buckets.values():
                    bucket.keys.clear()

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Every object of a bucket."""
        from moto.backends import get_backend

        partitions = (partition for backend in get_backend("s3").values() for partition in backend.values())
        (held,) = (partition.buckets[bucket] for partition in partitions if bucket in partition.buckets)
        return {key: found.value for key, found in held.keys.items() if hasattr(found, "value")}

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
        headers = dict(handler.headers.items())
        if self.ignores_conditions:
            headers = {name: value for name, value in headers.items() if name.lower() != "if-none-match"}
        with self._writing if handler.command in ("PUT", "POST") else nullcontext():
            connection = http.client.HTTPConnection("127.0.0.1", self.moto_port)
            connection.request(handler.command, handler.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            connection.close()
        return answer.status, dict(answer.getheaders()), data

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
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    running = Server(moto.get_host_and_port()[1])
    thread = threading.Thread(target=running.http.serve_forever, daemon=True)
    thread.start()
    yield running
    running.http.shutdown()
    running.http.server_close()
    thread.join()
    moto.stop()
