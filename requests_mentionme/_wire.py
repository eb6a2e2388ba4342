"""What a server sends, read without trust. Pure: odd input gives None or an empty value, and never an error."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from email.utils import mktime_tz, parsedate_tz
from typing import Any, NamedTuple, cast

_REPLACEMENT = "[secret]"
_BACKSLASH = r"(?: \\ | %(?:25)*5c )"  # as it is; as %5c, in a URL; as %255c, in a URL within a URL; and so on
_BACKSLASHES = re.compile(rf"{_BACKSLASH}+", flags=re.IGNORECASE | re.VERBOSE)
# How characters are spelled: `\u00e9`, `%C3%A9`, or as they are. A run of escapes is one spelling, since one character
# may take several. Backslashes before it belong to it, as in `\"`.
_SPELLING = re.compile(
    rf"""
    (?P<unicode> (?: {_BACKSLASH}+ u[0-9a-f]{{4}} )+ )
    | {_BACKSLASH}* (?P<percent> (?: (?!{_BACKSLASH}) %(?:25)*[0-9a-f]{{2}} )+ )
    | {_BACKSLASH}* (?P<plain> (?!{_BACKSLASH}) . )
    | {_BACKSLASH}+
    """,
    flags=re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
# A control character is the letter that stands for it behind a backslash, a plus is a space of a form in a URL, and a
# backslash is nothing.
_PLAIN_FORM = str.maketrans({"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f", "+": " ", "\\": None})
# What a token may consist of: other characters in a header make `http.client` raise an error that shows them.
HEADER_SAFE = re.compile(r"[\x21-\x7e]+")


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
    retry_after = headers.get("Retry-After")
    wait = number(retry_after)
    if wait is None:
        date = http_date(retry_after)
        if date is not None:
            wait = date - (http_date(headers.get("Date")) or now)  # by the server's own clock, if it says what that is
    if wait is None:
        # Mention Me's own headers stand on every answer. They ask for a wait only where no requests are left. The time
        # of the reset is a length, and no date.
        left = number(headers.get("X-RateLimit-Remaining"))
        if left is None or left <= 0:
            wait = number(headers.get("X-RateLimit-Reset"))
    return None if wait is None else min(max(wait, 0.0), 86_400.0)


def server_words(fields: Mapping[str, Any] | None, secret: str) -> str:
    """Return what the server says in RFC 6749's fields or in Mention Me's, quoted and fit for a message.

    Returns:
        At most 200 characters, without *secret*, as a `repr`, so that what a server wrote can't break out of a line of
        a log. An empty text where it says nothing. An answer with a token is not quoted, as it may repeat the token.
    """
    if fields is None or fields.get("access_token"):
        return ""
    said = [fields.get(name) for name in ("error", "error_description", "message")]
    text = ": ".join(part for part in said if isinstance(part, str) and part)
    return repr(scrub(text, secret)[:200]) if text else ""


def scrub(text: str, secret: str) -> str:
    """Return *text* with *secret* replaced, however the secret is spelled there.

    It may be escaped as in JSON, also as JSON within JSON, or as in a URL. Both texts are brought into a plain form in
    which all these spellings look alike, and then one is searched for in the other. That takes time linear in the
    text. A pattern that lists the spellings of each character would take exponential time in a run of backslashes: it
    tries each way to divide them among the characters.
    """
    plain_secret = "".join(character.plain for character in _characters(secret))
    if not plain_secret:
        return _BACKSLASHES.sub(_REPLACEMENT, text)  # the secret is backslashes alone, which have no plain form
    characters = list(_characters(text))
    plain_text = "".join(character.plain for character in characters)
    pieces: list[str] = []
    end_of_last = 0
    found = plain_text.find(plain_secret)
    while found >= 0:
        after = found + len(plain_secret)
        pieces += [text[end_of_last : characters[found].start], _REPLACEMENT]
        end_of_last = characters[after - 1].end
        trailing_backslashes = _BACKSLASHES.match(text, end_of_last)
        if trailing_backslashes is not None and secret.endswith("\\"):
            end_of_last = trailing_backslashes.end()  # they have no plain form, but belong to the secret
        found = plain_text.find(plain_secret, after)
    return "".join([*pieces, text[end_of_last:]])


class _Character(NamedTuple):
    plain: str  # in plain form
    start: int  # of its spelling in the text
    end: int


def _characters(text: str) -> Iterator[_Character]:
    """Yield the characters of *text*.

    In plain form, letters have no case, there are no backslashes, and a control character is the letter that stands
    for it behind a backslash. A run of escapes is one spelling, since a character may take several of them.
    """
    for spelling in _SPELLING.finditer(text):
        if spelling["unicode"]:
            codes = re.findall(r"(?i)u([0-9a-f]{4})", spelling["unicode"])
            characters = bytes.fromhex("".join(codes)).decode("utf-16-be", errors="surrogatepass")
        elif spelling["percent"]:
            codes = re.findall(r"(?i)([0-9a-f]{2})(?=%|\Z)", spelling["percent"])  # the last two digits of each
            characters = bytes.fromhex("".join(codes)).decode(errors="replace")
        else:
            characters = spelling["plain"] or ""  # backslashes alone, at the end, have no plain form
        for plain in characters.casefold().translate(_PLAIN_FORM):
            yield _Character(plain, spelling.start(), spelling.end())
