"""What a server sends, read without trust. Pure; odd input is None or empty, never an error."""

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from email.utils import mktime_tz, parsedate_tz
from typing import Any, cast
from urllib.parse import quote

HEADER_SAFE = re.compile(r"[\x21-\x7e]+")  # other text could make `http.client` raise an error that prints it


def json_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in *body*, None where it holds anything else."""
    with suppress(ValueError, RecursionError):
        value = json.loads(body, parse_int=float)  # float: no integer is too long for it
        return cast("dict[str, Any]", value) if isinstance(value, dict) else None
    return None


def jwt_claims(token: str) -> dict[str, Any]:
    """Return the payload of *token* (RFC 7519 §4), `{}` where it is not a JWT.

    Not verified: a token is opaque to a client (RFC 6749 §1.4), and no key to verify it with is published.
    """
    import jwt  # noqa: PLC0415 - slow to import where `cryptography` is installed, so when it is needed

    with suppress(jwt.PyJWTError, ValueError, RecursionError):
        return jwt.decode(token, options={"verify_signature": False})
    return {}


def number(value: object) -> float | None:
    """Return a finite number that came as int, float or numeric string, None for anything else."""
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            result = float(value)
            return result if math.isfinite(result) else None
    return None


def http_date(value: str | None) -> float | None:
    """Return an HTTP date (RFC 9110 §5.6.7) in seconds since the epoch, None where it is none."""
    with suppress(ValueError, OverflowError):
        parsed = parsedate_tz(value or "")
        return float(mktime_tz(parsed)) if parsed else None
    return None


def requested_wait(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds, up to a day, after which a server asks to be tried again; None where it does not."""
    wait = number(headers.get("Retry-After"))
    if wait is None and (at := http_date(headers.get("Retry-After"))) is not None:
        wait = at - (http_date(headers.get("Date")) or now)
    # Mention Me's own header stands on every answer: it asks for a wait where no requests are left.
    if wait is None and (number(headers.get("X-RateLimit-Remaining")) or 0) <= 0:
        wait = number(headers.get("X-RateLimit-Reset"))
    return None if wait is None else min(max(wait, 0.0), 86_400.0)


def server_message(fields: Mapping[str, Any] | None, secret: str) -> str:
    """Return what the server said, in RFC 6749's fields or Mention Me's, fit for a message; `""` if nothing."""
    if fields is None or fields.get("access_token"):  # what is said beside a token may quote it
        return ""
    said = [fields.get(name) for name in ("error", "error_description", "message")]
    text = scrub(": ".join(part for part in said if isinstance(part, str) and part), secret)
    return f", {text[:200]!r}" if text else ""  # repr: what a server wrote must not break out of a log line


def scrub(text: str, secret: str) -> str:
    """Return *text* without *secret*, however it is escaped there: as in JSON, also within JSON, or as in a URL."""
    spellings = ({char, json.dumps(char)[1:-1], quote(char, "", errors="replace")} for char in secret)
    characters = ("|".join(re.escape(each) for each in sorted(some, reverse=True) if each) for some in spellings)
    escaped = "".join(rf"\\{{0,7}}(?:{character})" for character in characters)
    return re.sub(escaped, "[secret]", text, flags=re.IGNORECASE)
