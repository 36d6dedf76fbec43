"""Object stores of obstore: from a URL to one; from its errors to what to do; long requests."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import obstore
from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store, from_url

from tsstore.errors import AccessError, NotAStoreError

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore, RetryConfig

_SCHEMES = {S3Store: "s3", GCSStore: "gs", AzureStore: "az", MemoryStore: "memory"}
_ENVIRONMENT = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
_URL = re.compile(r"(s3|gs|az)://[^/@?#\s]+(/[^?#]*)?")
_ONCE: RetryConfig = {"max_retries": 0, "retry_timeout": timedelta(minutes=2)}
"""What fails is repeated here, so that it can be said and interrupted."""
_CLIENT_OPTIONS = [
    "allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type",
    "http1_only", "http2_only", "pool_idle_timeout", "pool_max_idle_per_host",
    "proxy_ca_certificate", "proxy_excludes", "proxy_url", "read_timeout", "timeout", "user_agent",
]  # fmt: skip
"""What obstore would take from the environment, but for options that are given."""

NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound|bucket does not exist")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3} [A-Za-z' -]*[A-Za-z])")
_LATER = "try again later"
_NO_CREDENTIALS = "no credentials were found"
# Looked for from the start alone: from each place in a text, all that follows would be read again.
_INSTANCE = r"(?s)\A(?=.*(169\.254\.169\.254|metadata\.google))"
_OR_PASS = ", or pass a store object of obstore that has them"
_WRONG = "the credentials are not accepted"
_KNOWN: list[tuple[str | re.Pattern[str], str, str]] = [
    (NO_BUCKET, "there is no such bucket",
     "create it, or check its name, the endpoint and the region"),
    (r"(?s)\A(?=.*redirect).*LOCATION", "the bucket is in another region",
     "set AWS_DEFAULT_REGION to its region"),
    ("BadScheme|builder error", "its endpoint is no https:// URL",
     "set AWS_ALLOW_HTTP=true if http:// is meant"),
    (_INSTANCE + ".*MicrosoftAzure", _NO_CREDENTIALS,
     "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY" + _OR_PASS),
    (_INSTANCE + r".*(GCS|metadata\.google)", _NO_CREDENTIALS,
     "set GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS" + _OR_PASS),
    (_INSTANCE, _NO_CREDENTIALS, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" + _OR_PASS),
    ("Invalid Access Key|InvalidAccessKey ", "the key is none", "check AZURE_STORAGE_ACCOUNT_KEY"),
    ("<Code>(InvalidAccessKeyId)</Code>", _WRONG, "check AWS_ACCESS_KEY_ID"),
    ("<Code>(SignatureDoesNotMatch)</Code>", _WRONG, "check AWS_SECRET_ACCESS_KEY"),
    ("<Code>(ExpiredToken)</Code>", _WRONG, "renew them, they have expired"),
    ("<Code>(InvalidToken)</Code>", _WRONG, "check AWS_SESSION_TOKEN"),
    ("<Code>(AuthenticationFailed)</Code>", _WRONG, "check the account and its key"),
]  # fmt: skip
"""What says so in the text of an error, what that means, and what to do."""
_NO_ANSWER = {
    "TimedOut|timed out|Timeout": "there is no answer in time",
    "Connect": "there is no connection to the object store",
    "": "the connection to the object store was lost",
}
_MAY_PASS = re.compile("408|409|412|429|5(?!0[15])")

SAID_AGAIN_SECONDS = 30.0
"""How long it is until it is said again how far a request is, or that it fails."""
MOST_AT_ONCE = 1000
"""Objects that one request lists, or deletes."""
_PIECE_BYTES = 1 << 20


def open_object_store(
    path: object, answer: float, retry: RetryConfig = _ONCE
) -> tuple[ObjectStore, str]:
    """Return an object store whose answers are waited for so long, and how a person writes it."""
    if isinstance(path, str | os.PathLike):
        url: str = os.fspath(path)
        if not _URL.fullmatch(url):
            raise NotAStoreError(
                f"{without_secrets(url)}: found a URL, expected a local path, or s3://, gs:// or "
                "az:// with a bucket and a path; what else an object store needs is given by "
                "environment variables or by a store object of obstore"
            )
        options: Any = _client_options(url, answer)
        location = url.rstrip("/")
        try:
            return from_url(url, retry_config=retry, client_options=options), location
        except Exception as error:
            failure = failure_of(error)
            raise AccessError(
                f"{location} cannot be used: {failure.cause}; {failure.remedy}"
            ) from None
    if isinstance(path, S3Store | GCSStore | AzureStore | MemoryStore):
        return path, _location(path)
    raise NotAStoreError(
        f"found {type(path).__name__}, expected a path, a URL such as s3://bucket/run.zarr, or a "
        f"store object of obstore: {', '.join(cls.__name__ for cls in _SCHEMES)}"
    )


def _location(store: S3Store | GCSStore | AzureStore | MemoryStore) -> str:
    """Return where a store object is, without the credentials that it may hold."""
    scheme = next(scheme for cls, scheme in _SCHEMES.items() if isinstance(store, cls))
    if isinstance(store, MemoryStore):
        return f"{scheme}://"
    name = "container_name" if isinstance(store, AzureStore) else "bucket"
    return f"{scheme}://{store.config.get(name, '')}/{store.prefix or ''}".rstrip("/")


def _client_options(url: str, answer: float) -> dict[str, str]:
    """Return how requests are sent: what the environment says, and deadlines where it does not."""
    prefix = _ENVIRONMENT[url.partition(":")[0]]
    given = {name: os.environ.get(f"{prefix}{name.upper()}") for name in _CLIENT_OPTIONS}
    deadlines = {"read_timeout": f"{round(answer * 1000)}ms", "timeout": "10m"}
    return deadlines | {name: value for name, value in given.items() if value is not None}


class Failure(NamedTuple):
    """Why a request failed, what to do about it, and whether that passes by itself perhaps."""

    cause: str
    remedy: str
    passes: bool = False


def failure_of(error: Exception) -> Failure:
    """Return why a request failed: said by obstore in a text of many lines, and XML in it."""
    text, kind = str(error), type(error).__name__
    for sign, cause, remedy in _KNOWN:
        if found := re.search(sign, text):
            return Failure(f"{cause} ({found[1]})" if cause is _WRONG else cause, remedy)
    status = found[1] if (found := _STATUS.search(text)) else ""
    code = found[1] if (found := _CODE.search(text)) else ""
    said = f"{status}, {code}" if code else status
    if kind == "UnauthenticatedError":
        return Failure(f"{_WRONG} ({said})", "check them")
    if kind == "PermissionDeniedError" or said.startswith("403"):
        remedy = "check the credentials, and get the permission for this bucket and prefix"
        return Failure(f"it is denied ({said})", remedy)
    if "HTTP error" in text or "error sending request" in text:
        cause = next(cause for sign, cause in _NO_ANSWER.items() if re.search(sign, text))
        return Failure(cause, "check the network and the endpoint, and try again", True)
    if _MAY_PASS.match(status) or code == "SlowDown":
        return Failure(f"the object store answers {said}", _LATER, True)
    if status:
        return Failure(f"the object store answers {said}", "check endpoint, region and credentials")
    if isinstance(error, ConnectionError):
        return Failure(text, _LATER, True)
    return Failure(_brief(text), "check the place and its settings")


def _brief(text: str) -> str:
    """Return a text on one line, without the debugging text that obstore appends."""
    line = " ".join(text.partition("\n\nDebug source")[0].split())
    return "".join(filter(str.isprintable, without_secrets(line)))[:200]


def without_secrets(text: str) -> str:
    """Leave users and passwords, and the queries of signed requests, out of URLs."""
    return re.sub(r"\?\S*", "?…", re.sub(r"//[^/\s]*@", "//", text))


class SentFile:
    """A file that is sent; how much of it has been is said every half minute."""

    def __init__(self, path: Path, say: Callable[[float, str], None]) -> None:
        self._path = path
        self._say = say
        self._count = 0
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._report, daemon=True)

    def __enter__(self) -> SentFile:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watch.join()

    def pieces(self) -> Iterator[bytes]:
        """Yield the file from its beginning: between pieces, an interrupt is heeded."""
        self._count = 0
        with open(self._path, "rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece
                self._count += len(piece)

    def _report(self) -> None:
        size = self._path.stat().st_size
        while not self._ended.wait(SAID_AGAIN_SECONDS):
            self._say(float("-inf"), f"{self._count:,} of {size:,} bytes are sent")


class Pages:
    """All objects below a key, a page at a time; a page that failed can be asked for.

    It goes on after the last key that came.
    """

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store = store
        self._prefix = key or None
        self._last: str | None = None
        self._begin()

    def next_page(self) -> Sequence[ObjectMeta]:
        """Return the next objects' keys, sizes and times; none at the end."""
        try:
            page = next(self._pages, [])
        except Exception:
            self._begin()
            raise
        self._last = page[-1]["path"] if page else self._last
        return page

    def _begin(self) -> None:
        self._pages = iter(
            obstore.list(self._store, self._prefix, offset=self._last, chunk_size=MOST_AT_ONCE)
        )
