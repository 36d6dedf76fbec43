"""Why a request to an object store failed, in one clause, what to do, and whether it may pass."""

from __future__ import annotations

import re
from typing import NamedTuple

NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound|bucket does not exist")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3} [A-Za-z' -]*[A-Za-z])")
_LATER = "try again later"
_NO_CREDENTIALS = "no credentials were found"
_INSTANCE = r"(?s)(?=.*(169\.254\.169\.254|metadata\.google))"
_OR_PASS = ", or pass a store object of obstore that has them"
_WRONG = "the credentials are not accepted"
_KNOWN: list[tuple[str | re.Pattern[str], str, str]] = [
    (NO_BUCKET, "there is no such bucket",
     "create it, or check its name, the endpoint and the region"),
    (r"(?s)(?=.*redirect).*LOCATION", "the bucket is in another region",
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
