"""One prefix of an S3 bucket: the only code that knows how S3 is asked, and what its failures mean to a person.

Endpoint, region and credentials come from the environment, as AWS documents it (AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; or the role of a container or an instance).
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from feedback_assets.errors import FeedbackError, OutOfReach

SCHEME = "s3://"
TIMEOUT = timedelta(seconds=120)
PAUSE = timedelta(milliseconds=100)
PIECE = 64 * 2**20
AT_A_TIME = 1_000
"""Objects that one request deletes."""
ATTEMPTS = 4
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Object:
    """An object as a listing tells it; `key` is relative to the prefix. `version`: where the bucket keeps old ones."""

    key: str
    bytes: int
    etag: str
    modified: datetime
    version: str | None = None


class Bucket:
    """The objects below `s3://bucket/prefix`. Nothing is asked before the first call.

    `timeout` is for one request, its body included; `pause` is before the first of the `ATTEMPTS` at another.
    """

    def __init__(self, url: str, *, timeout: timedelta = TIMEOUT, pause: timedelta = PAUSE) -> None:
        found = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", url)
        self.prefix = (found[2] or "").strip("/") if found else ""
        if found is None or (self.prefix and any(part in ("", ".", "..") for part in self.prefix.split("/"))):
            raise FeedbackError(f"{url!r} is no place in S3; write s3://bucket/prefix")
        self.name = found[1]
        self.url = f"{SCHEME}{self.name}" + (f"/{self.prefix}" if self.prefix else "")
        self._timeout, self._pause = timeout, pause

    def standing(self, key: str) -> Object | None:
        """What stands under `key`, its bytes aside; None if nothing does."""
        import obstore

        try:
            return _object(self._asked(lambda: obstore.head(self._opened, key)))
        except _Missing:
            return None

    def get(self, key: str) -> bytes | None:
        """The bytes under `key`; None if nothing stands there."""
        import obstore

        try:
            return self._asked(lambda: bytes(obstore.get(self._opened, key).bytes()))
        except _Missing:
            return None

    def fetch(self, key: str, to: Path, *, etag: str | None = None, size: int = 0) -> bool:
        """Write what stands under `key` to the file `to`; False if nothing does, or no longer with this `etag`.

        What is known to be large (`size` in bytes) comes in pieces, each in a request of its own.
        """
        import obstore

        asked: dict[str, Any] = {"if_match": etag} if etag else {}
        ranges = [{"range": (at, min(at + PIECE, size))} for at in range(0, size, PIECE)] if size > PIECE else [{}]
        try:
            with to.open("wb") as file:
                for part in ranges:
                    options: Any = {**asked, **part}
                    file.write(
                        self._asked(lambda options=options: obstore.get(self._opened, key, options=options).bytes())
                    )
        except _Missing:
            return False
        return True

    def create(self, key: str, data: bytes | Path) -> bool:
        """Put `data` under `key` if nothing stands there; True if it does so now, and nothing else did before.

        A put whose answer was lost may have succeeded: bytes are compared with those that stand there, and are ours if
        they are the same. Of a file it is not asked whose it is: its name says what it holds.
        """
        import obstore

        def put() -> object:
            return obstore.put(self._opened, key, data, mode="create", use_multipart=False)

        return self._created(key, put, lambda: self._is(key, data))

    def replaces(self, key: str, data: bytes) -> bool:
        """Whether the server, against the condition, puts `data` where something stands."""
        import obstore

        try:
            self._asked(lambda: obstore.put(self._opened, key, data, mode="create", use_multipart=False))
        except obstore.exceptions.AlreadyExistsError:
            return False
        return True

    def replace(self, key: str, data: bytes | Path) -> bool:
        """Put `data` under `key` in place of what stands there; True if something did."""
        import obstore

        was_there = True
        for attempt in range(1, ATTEMPTS + 1):
            stands = self.standing(key)
            was_there = was_there and stands is not None  # what another attempt of ours put is no predecessor
            mode: Any = "create" if stands is None else {"e_tag": stands.etag}
            try:
                self._told(lambda mode=mode: obstore.put(self._opened, key, data, mode=mode, use_multipart=False))
            except (_Missing, obstore.exceptions.AlreadyExistsError):  # another put or deleted it meanwhile, or we did
                pass
            except _Unanswered as error:
                if attempt == ATTEMPTS:
                    raise OutOfReach(str(error)) from None
            else:
                return was_there
            time.sleep(self._pause.total_seconds() * 2**attempt)
        raise FeedbackError(f"{self.url}/{key}: others put it and take it away without end; run again")

    def delete(self, keys: Sequence[str]) -> None:
        """Remove what stands under `keys`, as far as anything does."""
        import obstore

        for start in range(0, len(keys), AT_A_TIME):
            some = list(keys[start : start + AT_A_TIME])
            with suppress(_Missing):
                self._asked(lambda some=some: obstore.delete(self._opened, some))

    def copy(self, key: str, to: str) -> bool:
        """Put what stands under `key` under `to`, too, if nothing stands there; its bytes stay in the bucket."""
        import obstore

        def copied() -> object:
            return obstore.copy(self._opened, key, to, overwrite=False)

        return self._created(to, copied, lambda: None if self.standing(to) is None else False)

    def objects(self, below: str = "") -> Iterator[Object]:
        """All objects below `below`, in no order."""
        import obstore

        pages: Any = self._asked(lambda: list(obstore.list(self._opened, below or None)))
        for page in pages:
            for entry in page:
                yield _object(entry)

    def names(self, below: str) -> list[str]:
        """Names directly below `below`, sorted."""
        import obstore

        found: Any = self._asked(lambda: obstore.list_with_delimiter(self._opened, below))
        listed = [*(entry["path"] for entry in found["objects"]), *found["common_prefixes"]]
        return sorted(path.rsplit("/", 1)[-1] for path in listed)

    @cached_property
    def _opened(self) -> Any:
        """The client, after the bucket listed nothing: a HEAD says of a bucket that is not there only "not found"."""
        import obstore
        from obstore.store import S3Store

        endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
        if endpoint is not None and not (
            urlsplit(endpoint).scheme in ("http", "https") and re.fullmatch(r"[\w.:\[\]-]+", urlsplit(endpoint).netloc)
        ):
            raise FeedbackError(f"AWS_ENDPOINT_URL is {endpoint!r}, which is no address; write https://host:port")
        client = S3Store(
            self.name,
            prefix=self.prefix or None,
            config={"copy_if_not_exists": "multipart", "conditional_put": "etag"},
            client_options={
                "allow_http": endpoint is not None and endpoint.startswith("http:"),
                "connect_timeout": min(self._timeout, timedelta(seconds=5)),
                "timeout": self._timeout,
            },
            retry_config={
                "max_retries": ATTEMPTS,
                "backoff": {
                    "init_backoff": self._pause,
                    "max_backoff": timedelta(seconds=5),
                    "base": 2,
                },
                "retry_timeout": 3 * self._timeout,
            },
        )
        self._asked(lambda: next(iter(obstore.list(client, prefix="nothing")), None))
        return client

    def _is(self, key: str, data: bytes | Path) -> bool | None:
        """Whether `data` stands under `key`; None if nothing does."""
        if isinstance(data, Path):
            return None if self.standing(key) is None else False
        stands = self.get(key)
        return None if stands is None else stands == data

    def _created(self, key: str, create: Callable[[], object], stands: Callable[[], bool | None]) -> bool:
        import obstore

        self._opened  # noqa: B018  a bucket that cannot be reached is not asked again
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._told(create)
            except obstore.exceptions.AlreadyExistsError:
                # So says S3 also while another put of the key is under way, and of our own put if its answer was lost.
                found = stands()
                if found is not None:
                    return found
            except _Unanswered as error:
                found = stands()
                if found is not None:
                    return found
                if attempt == ATTEMPTS:
                    raise OutOfReach(str(error)) from None
            else:
                return True
            time.sleep(self._pause.total_seconds() * 2**attempt)
        raise FeedbackError(f"{self.url}/{key}: others put it and take it away without end; run again")

    def _asked(self, call: Callable[[], Result]) -> Result:
        """`call`, and again if it broke off in the middle of an answer, which the library does not repeat."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._told(call)
            except _Unanswered as error:
                gave_up = "retries" in str(error) and "body error" not in str(error)
                if gave_up or attempt == ATTEMPTS:
                    raise OutOfReach(str(error)) from None
        raise AssertionError("the last attempt returns or raises")

    def _told(self, call: Callable[[], Result]) -> Result:
        """`call`; what a person can mend is said in one line."""
        from obstore.exceptions import (
            BaseError,
            GenericError,
            PermissionDeniedError,
            PreconditionError,
            UnauthenticatedError,
        )

        try:
            return call()
        except (FileNotFoundError, BaseError) as error:
            said = str(error)
            if "NoSuchBucket" in said:
                raise OutOfReach(f"{self.url}: there is no such bucket; make it, or correct its name") from None
            if "169.254.169.254" in said or "/latest/api/token" in said:
                raise OutOfReach(f"{self.url}: no credentials; set {_CREDENTIALS}") from None
            if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or "403 Forbidden" in said:
                raise OutOfReach(
                    f"{self.url}: access denied{_code(said)}; these credentials must allow to list, get, put and "
                    "(to erase and to collect) delete there"
                ) from None
            if isinstance(error, (FileNotFoundError, PreconditionError)):
                raise _Missing from None
            if not isinstance(error, GenericError):
                raise
            where = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "S3")
            raise _Unanswered(f"{self.url}: {where} does not answer as it should: {_first(said)}") from None


def _object(entry: Any) -> Object:
    version = entry.get("version")
    kept = None if version == "null" else version
    return Object(entry["path"], entry["size"], entry["e_tag"] or "", entry["last_modified"], kept)


class _Missing(Exception):
    """Nothing stands there, or something else than was asked for."""


class _Unanswered(Exception):
    """No answer, or none that says what became of the request."""


def _code(said: str) -> str:
    found = re.search(r"<Code>(\w+)</Code>", said)
    return f" ({found[1]})" if found else ""


def _first(said: str) -> str:
    """The first line, without how often and how long was to be tried, and what S3 calls it."""
    line = said.split("\n", 1)[0].split(": <", 1)[0].removeprefix("Generic S3 error: ")
    return re.sub(r" in [\d.]+\ws(, after \d+ retries)?.*?- ", r"\1: ", line)[:300] + _code(said)
