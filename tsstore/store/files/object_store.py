"""From a URL to an object store of obstore, and from a store to how a person writes it."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store, from_url

from tsstore.errors import AccessError, NotAStoreError
from tsstore.store.files.failures import failure_of, without_secrets

if TYPE_CHECKING:
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
