"""Why a request to an object store failed, in one clause, what to do, and whether it may pass."""

from __future__ import annotations

import re
from typing import NamedTuple

NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound|bucket does not exist")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3} [A-Za-z' -]*[A-Za-z])")
_LATER = "try again later"
_WRONG = "the credentials are not accepted"
_CREDENTIALS = {
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "renew them, they have expired",
    "InvalidToken": "check AWS_SESSION_TOKEN",
    "AuthenticationFailed": "check the account and its key",
}
_VARIABLES = {
    "MicrosoftAzure": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "GCS": "GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS",
    "metadata.google": "GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS",
    "": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}
_BUSY = {"408", "429"}
_NEVER = {"501", "505"}
_CONFLICTS = {"409", "412"}


class Failure(NamedTuple):
    """Why a request failed, what to do about it, and whether that passes by itself perhaps."""

    cause: str
    remedy: str
    passes: bool = False


def failure_of(error: Exception) -> Failure:
    """Return why a request failed: said by obstore in a text of many lines, and XML in it."""
    text = str(error)
    status = found[1] if (found := _STATUS.search(text)) else ""
    code = found[1] if (found := _CODE.search(text)) else ""
    said = f"{status}, {code}" if code else status
    for failure in (_no_place(text), _no_permission(error, text, said, code), _no_answer(text)):
        if failure:
            return failure
    number = status[:3]
    if (
        (number >= "500" and number not in _NEVER)
        or number in _BUSY | _CONFLICTS
        or code == "SlowDown"
    ):
        return Failure(f"the object store answers {said}", _LATER, True)
    if status:
        return Failure(f"the object store answers {said}", "check endpoint, region and credentials")
    if isinstance(error, ConnectionError):
        return Failure(text, _LATER, True)
    return Failure(_brief(text), "check the place and its settings")


def _no_place(text: str) -> Failure | None:
    """Return the failure that the place is none, or no such one is meant."""
    if NO_BUCKET.search(text):
        return Failure(
            "there is no such bucket", "create it, or check its name, the endpoint and the region"
        )
    if "redirect" in text and "LOCATION" in text:
        return Failure("the bucket is in another region", "set AWS_DEFAULT_REGION to its region")
    if "BadScheme" in text or "builder error" in text:
        return Failure(
            "its endpoint is no https:// URL", "set AWS_ALLOW_HTTP=true if http:// is meant"
        )
    return None


def _no_permission(error: Exception, text: str, said: str, code: str) -> Failure | None:
    """Return the failure that nobody is known there, or may not do it."""
    if "169.254.169.254" in text or "metadata.google" in text:
        return Failure(
            "no credentials were found",
            f"set {_to_set(text)}, or pass a store object of obstore that has them",
        )
    if "Invalid Access Key" in text or "InvalidAccessKey " in text:
        return Failure("the key is none", "check AZURE_STORAGE_ACCOUNT_KEY")
    if code in _CREDENTIALS:
        return Failure(f"{_WRONG} ({code})", _CREDENTIALS[code])
    kind = type(error).__name__
    if kind == "UnauthenticatedError":
        return Failure(f"{_WRONG} ({said})", "check them")
    if kind == "PermissionDeniedError" or said.startswith("403"):
        return Failure(
            f"it is denied ({said})",
            "check the credentials, and get the permission for this bucket and prefix",
        )
    return None


def _to_set(text: str) -> str:
    """Return which environment variables hold the credentials of the object store of an error."""
    return next((names for name, names in _VARIABLES.items() if name in text), _VARIABLES[""])


def _no_answer(text: str) -> Failure | None:
    """Return the failure that there was no connection, or no answer, or not all of it."""
    if "HTTP error" not in text and "error sending request" not in text:
        return None
    if "TimedOut" in text or "timed out" in text or "Timeout" in text:
        cause = "there is no answer in time"
    elif "Connect" in text:
        cause = "there is no connection to the object store"
    else:
        cause = "the connection to the object store was lost"
    return Failure(cause, "check the network and the endpoint, and try again", True)


def _brief(text: str) -> str:
    """Return a text on one line, without the debugging text that obstore appends."""
    line = " ".join(text.partition("\n\nDebug source")[0].split())
    return "".join(filter(str.isprintable, without_secrets(line)))[:200]


def without_secrets(text: str) -> str:
    """Leave users and passwords, and the queries of signed requests, out of URLs."""
    return re.sub(r"\?\S*", "?…", re.sub(r"//[^/\s]*@", "//", text))
