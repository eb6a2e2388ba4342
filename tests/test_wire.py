"""What a server sends, read without trust: JSON, JWTs, numbers, dates, waits, messages."""

import base64
import json
import math
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from requests_mentionme import _wire

KEY = "k" * 64
NOW = 1_800_000_000.0
NOW_AS_DATE = "Fri, 15 Jan 2027 08:00:00 GMT"
IN_90_SECONDS = "Fri, 15 Jan 2027 08:01:30 GMT"
SECRET = "s3cr3t"
DEEP = b"[" * 60_000


def segment(content: bytes) -> str:
    """Return one part of a JWT."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def jwt_of(payload: bytes, header: bytes = b'{"alg":"none"}') -> str:
    """Return an unsigned JWT of exactly these bytes."""
    return f"{segment(header)}.{segment(payload)}."


# json_object


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"n": "\xc3\xa9"}', id="UTF-8"),
        pytest.param(b'\xef\xbb\xbf{"n": "\xc3\xa9"}', id="UTF-8 with BOM"),
        pytest.param('{"n": "é"}'.encode("utf-16"), id="UTF-16"),
        pytest.param('{"n": "é"}'.encode("utf-32-be"), id="UTF-32"),
        pytest.param(b' \r\n\t{"n": "\\u00e9"}\n', id="space around it"),
    ],
)
def test_a_json_object_is_read_in_each_of_its_encodings(body: bytes) -> None:
    """RFC 8259 asks for UTF-8; a byte order mark or another Unicode encoding does no harm."""
    assert _wire.json_object(body) == {"n": "é"}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" \n", id="space"),
        pytest.param(b"<html>Bad gateway</html>", id="HTML"),
        pytest.param(b"null", id="null"),
        pytest.param(b"true", id="true"),
        pytest.param(b"5", id="number"),
        pytest.param(b'"text"', id="string"),
        pytest.param(b"[]", id="empty list"),
        pytest.param(b'[{"access_token": "t"}]', id="object in a list"),
        pytest.param(b'{"access_token": "t"', id="cut short"),
        pytest.param(b'{"access_token": "t"} {}', id="two objects"),
        pytest.param(b"{'access_token': 't'}", id="single quotes"),
        pytest.param(b'{"a": "\xff\xfe"}', id="invalid UTF-8"),
        pytest.param(b"\xef\xbb\xbf", id="a BOM alone"),
        pytest.param(b'\xff\xfe{"a": 1}', id="BOM of another encoding"),
        pytest.param(bytes(range(256)), id="every byte"),
        pytest.param(DEEP, id="60,000 brackets"),
        pytest.param(b'{"a": ' + DEEP, id="60,000 brackets in an object"),
        pytest.param(b'{"a": ' * 60_000, id="60,000 braces"),
    ],
)
def test_a_body_that_is_no_json_object_is_none(body: bytes) -> None:
    """Whatever else a server sends is None, not an error."""
    assert _wire.json_object(body) is None


def test_an_integer_of_any_length_is_read() -> None:
    """An integer longer than Python converts does not make an object unreadable."""
    body = b'{"n": ' + b"9" * 10_000 + b', "small": -3, "real": 2.5}'

    assert _wire.json_object(body) == {"n": math.inf, "small": -3, "real": 2.5}


# jwt_claims


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({}, id="empty"),
        pytest.param({"exp": 1, "nbf": 99_999_999_999, "iat": 99_999_999_999}, id="expired and not yet valid"),
        pytest.param({"exp": "text", "nbf": None, "iat": [], "jti": 5}, id="times that are none"),
        pytest.param({"aud": "someone", "sub": "me", "scope": "a b", "env": "demo"}, id="for someone else"),
    ],
)
def test_the_claims_of_a_jwt_are_read_without_verifying_them(claims: dict[str, Any]) -> None:
    """The signature and the times are for the API to judge, and the key to verify them is its own."""
    assert _wire.jwt_claims(jwt.encode(claims, KEY, "HS256")) == claims


def test_an_unsigned_jwt_has_claims() -> None:
    """Algorithm none does no harm where nothing is verified."""
    assert _wire.jwt_claims(jwt.encode({"exp": 5}, "", "none")) == {"exp": 5}
    assert _wire.jwt_claims(jwt_of(b'{"exp": 5}', header=b'{"alg":["odd"]}')) == {"exp": 5}


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param("opaque", id="opaque"),
        pytest.param("..", id="only dots"),
        pytest.param("a.b.c", id="three letters"),
        pytest.param(jwt.encode({"exp": 5}, KEY).rpartition(".")[0], id="no signature part"),
        pytest.param(jwt.encode({"exp": 5}, KEY)[:40], id="cut short"),
        pytest.param("é.é.é", id="not ASCII"),
        pytest.param("\ud800.\ud800.\ud800", id="lone surrogates"),
        pytest.param(jwt_of(b"[1]"), id="payload is a list"),
        pytest.param(jwt_of(b"5"), id="payload is a number"),
        pytest.param(jwt_of(b"null"), id="payload is null"),
        pytest.param(jwt_of(b'"exp"'), id="payload is text"),
        pytest.param(jwt_of(b""), id="no payload"),
        pytest.param(jwt_of(b'{"exp": '), id="payload cut short"),
        pytest.param(jwt_of(b'{"a": "\xff"}'), id="payload is invalid UTF-8"),
        pytest.param(jwt_of(b'{"exp": ' + DEEP), id="payload of 60,000 brackets"),
        pytest.param(jwt_of(b'{"exp": 5}', header=b'{"alg": ' + DEEP), id="header of 60,000 brackets"),
        pytest.param(jwt_of(b'{"exp": 5}', header=b"[]"), id="header is a list"),
        pytest.param(jwt_of(b'{"exp": 5}', header=b'{"b64": false}'), id="detached payload"),
    ],
)
def test_a_token_that_is_no_jwt_has_no_claims(token: str) -> None:
    """A token is opaque to a client: whatever can't be read is no error."""
    assert _wire.jwt_claims(token) == {}


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b'{"crit": ["new"], "new": 1}', id="unknown critical extension"),
        pytest.param(b'{"crit": 5}', id="crit is a number"),
        pytest.param(b'{"kid": 5}', id="kid is a number"),
    ],
)
def test_a_jwt_with_an_odd_header_is_no_error(header: bytes) -> None:
    """Versions of PyJWT differ on what makes a token unreadable; none of it is an error here."""
    assert _wire.jwt_claims(jwt_of(b'{"exp": 5}', header)) in ({}, {"exp": 5})


# number


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(0, 0.0, id="zero"),
        pytest.param(3600, 3600.0, id="int"),
        pytest.param(-2.5, -2.5, id="negative float"),
        pytest.param("3600", 3600.0, id="text of an int"),
        pytest.param(" 12.5 ", 12.5, id="text of a float, space around it"),
        pytest.param("1e3", 1000.0, id="text with an exponent"),
        pytest.param(10**300, 1e300, id="large int"),
    ],
)
def test_a_number_is_read_from_int_float_and_text(value: object, expected: float) -> None:
    """Servers send numbers as text, too."""
    result = _wire.number(value)

    assert result == expected
    assert isinstance(result, float)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="None"),
        pytest.param(True, id="true"),
        pytest.param(False, id="false"),
        pytest.param(math.nan, id="NaN"),
        pytest.param(math.inf, id="infinity"),
        pytest.param(-math.inf, id="minus infinity"),
        pytest.param(10**400, id="int beyond any float"),
        pytest.param("", id="empty text"),
        pytest.param("soon", id="text"),
        pytest.param("nan", id="text of NaN"),
        pytest.param("-Infinity", id="text of minus infinity"),
        pytest.param("1e999", id="text beyond any float"),
        pytest.param("9" * 10_000, id="text of 10,000 digits"),
        pytest.param("0x10", id="text of a hexadecimal"),
        pytest.param(b"5", id="bytes"),
        pytest.param([5], id="list"),
        pytest.param({"seconds": 5}, id="object"),
        pytest.param(5j, id="complex"),
    ],
)
def test_what_is_no_finite_number_is_none(value: object) -> None:
    """Bools, NaN, infinities and anything else are ignored."""
    assert _wire.number(value) is None


# http_date


@pytest.mark.parametrize(
    "date",
    [
        pytest.param("Sun, 06 Nov 1994 08:49:37 GMT", id="IMF-fixdate"),
        pytest.param("Sunday, 06-Nov-94 08:49:37 GMT", id="RFC 850"),
        pytest.param("Sun Nov  6 08:49:37 1994", id="asctime"),
        pytest.param("Sun, 06 Nov 1994 09:49:37 +0100", id="an offset, though none is allowed"),
    ],
)
def test_an_http_date_is_read_in_each_of_its_forms(date: str) -> None:
    """A recipient accepts all three forms (RFC 9110 §5.6.7)."""
    result = _wire.http_date(date)

    assert result == 784_111_777
    assert isinstance(result, float)


@pytest.mark.parametrize(
    "date",
    [
        pytest.param(None, id="absent"),
        pytest.param("", id="empty"),
        pytest.param("tomorrow", id="text"),
        pytest.param("3600", id="number"),
        pytest.param(" ", id="space"),
        pytest.param("Sun, 06 Nov", id="cut short"),
        pytest.param("Sun, 06 Foo 1994 08:49:37 GMT", id="unknown month"),
        pytest.param("Thu, 01 Jan 99999 00:00:00 GMT", id="year 99999"),
        pytest.param(f"Thu, 01 Jan {'9' * 30} 00:00:00 GMT", id="year of 30 digits"),
        pytest.param(f"Thu, 01 Jan {'9' * 5000} 00:00:00 GMT", id="year of 5,000 digits"),
        pytest.param("1994-11-06T08:49:37Z", id="ISO 8601"),
    ],
)
def test_what_is_no_http_date_is_none(date: str | None) -> None:
    """A date that can't be read is None, not an error."""
    assert _wire.http_date(date) is None


def test_the_year_0_is_no_error() -> None:
    """What a date of the year 0 means is open; it must not be an error."""
    assert _wire.http_date("Thu, 01 Jan 0000 00:00:00 GMT") in (None, 946_684_800.0)


# requested_wait


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        pytest.param({}, None, id="nothing asked"),
        pytest.param({"Retry-After": "7"}, 7, id="seconds"),
        pytest.param({"Retry-After": "1.5"}, 1.5, id="part of a second"),
        pytest.param({"Retry-After": "0"}, 0, id="no seconds"),
        pytest.param({"Retry-After": "-5"}, 0, id="negative seconds"),
        pytest.param({"Retry-After": "86401"}, 86_400, id="more than a day"),
        pytest.param({"Retry-After": "1e18"}, 86_400, id="absurd seconds"),
        pytest.param({"Retry-After": "soon"}, None, id="nonsense"),
        pytest.param({"Retry-After": "inf"}, None, id="infinity"),
        pytest.param({"Retry-After": IN_90_SECONDS}, 90, id="date, by the local clock"),
        pytest.param(
            {"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT", "Date": "Sun, 06 Nov 1994 08:48:37 GMT"},
            60,
            id="date, by the clock of the server",
        ),
        pytest.param({"Retry-After": IN_90_SECONDS, "Date": "today"}, 90, id="date beside a useless Date"),
        pytest.param({"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0, id="date in the past"),
        pytest.param({"Retry-After": NOW_AS_DATE, "Date": IN_90_SECONDS}, 0, id="date before Date"),
        pytest.param({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, 86_400, id="absurd date"),
        pytest.param({"Date": NOW_AS_DATE}, None, id="Date alone"),
        pytest.param({"X-RateLimit-Reset": "42"}, 42, id="reset, remaining absent"),
        pytest.param({"X-RateLimit-Reset": "42", "X-RateLimit-Remaining": "0"}, 42, id="reset, 0 remaining"),
        pytest.param({"X-RateLimit-Reset": "42", "X-RateLimit-Remaining": "-1"}, 42, id="reset, -1 remaining"),
        pytest.param({"X-RateLimit-Reset": "42", "X-RateLimit-Remaining": "x"}, 42, id="reset, nonsense remaining"),
        pytest.param({"X-RateLimit-Reset": "42", "X-RateLimit-Remaining": "1"}, None, id="reset, 1 remaining"),
        pytest.param({"X-RateLimit-Reset": "42", "X-RateLimit-Remaining": "299"}, None, id="reset, 299 remaining"),
        pytest.param({"X-RateLimit-Reset": "-1"}, 0, id="negative reset"),
        pytest.param({"X-RateLimit-Reset": "1e9"}, 86_400, id="absurd reset"),
        pytest.param({"X-RateLimit-Reset": NOW_AS_DATE}, None, id="reset that is no number"),
        pytest.param({"X-RateLimit-Remaining": "0"}, None, id="none remaining, no reset"),
        pytest.param({"Retry-After": "7", "X-RateLimit-Reset": "42"}, 7, id="both"),
        pytest.param({"Retry-After": "0", "X-RateLimit-Reset": "42"}, 0, id="both, the first 0"),
        pytest.param({"Retry-After": IN_90_SECONDS, "X-RateLimit-Reset": "42"}, 90, id="both, the first a date"),
        pytest.param({"Retry-After": "soon", "X-RateLimit-Reset": "42"}, 42, id="both, the first nonsense"),
        pytest.param(
            {"Retry-After": "7", "X-RateLimit-Reset": "42", "X-RateLimit-Remaining": "5"}, 7, id="both, 5 remaining"
        ),
    ],
)
def test_a_server_asks_for_a_wait(headers: dict[str, str], wait: float | None) -> None:
    """`Retry-After` counts first, then the end of a window that is used up; never below 0 or above a day."""
    assert _wire.requested_wait(headers, NOW) == wait


# server_message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param(None, "", id="no object"),
        pytest.param({}, "", id="empty object"),
        pytest.param({"error": "invalid_client"}, ", 'invalid_client'", id="RFC 6749"),
        pytest.param(
            {"error_description": "Unknown client", "error": "invalid_client"},
            ", 'invalid_client: Unknown client'",
            id="RFC 6749 with a description",
        ),
        pytest.param({"code": 401, "message": "Expired token."}, ", 'Expired token.'", id="Mention Me"),
        pytest.param(
            {"message": "c", "error_description": "b", "error": "a", "detail": "d"}, ", 'a: b: c'", id="all of them"
        ),
        pytest.param({"error": "", "message": "said"}, ", 'said'", id="one is empty"),
        pytest.param({"error": "", "message": ""}, "", id="all are empty"),
        pytest.param({"error": {"code": 5}, "error_description": 5, "message": None}, "", id="none is text"),
    ],
)
def test_what_a_server_said_is_quoted(fields: dict[str, Any] | None, message: str) -> None:
    """Both shapes of an error body are read; what is not text is left out."""
    assert _wire.server_message(fields, SECRET) == message


def test_what_a_server_said_is_cut_to_200_characters() -> None:
    """A long text does not fill a log."""
    assert _wire.server_message({"message": "x" * 200}, SECRET) == f", {'x' * 200!r}"
    assert _wire.server_message({"message": "x" * 199 + "yz"}, SECRET) == f", {'x' * 199 + 'y'!r}"


@pytest.mark.parametrize("token", ["hidden-token", ["hidden-token"], {"jwt": "hidden-token"}, 7])
def test_what_a_server_says_beside_a_token_is_not_shown(token: object) -> None:
    """It may quote the token, which may be a good one though the rest of the answer can't be used."""
    assert _wire.server_message({"access_token": token, "message": "issued hidden-token"}, SECRET) == ""


@pytest.mark.parametrize("token", [None, ""])
def test_what_a_server_says_instead_of_a_token_is_shown(token: str | None) -> None:
    """There is none that it could quote."""
    assert _wire.server_message({"access_token": token, "message": "Down."}, SECRET) == ", 'Down.'"


def test_what_a_server_said_stays_within_its_line() -> None:
    """Control characters and quotes are escaped, so that no line of a log can be forged, nor a terminal driven."""
    message = _wire.server_message({"message": 'a\'\r\n2027 INFO "forged"\x1b[2J\x00\u202e\ud800'}, SECRET)

    assert message.isprintable()
    assert message == r""", 'a\'\r\n2027 INFO "forged"\x1b[2J\x00\u202e\ud800'"""


@pytest.mark.parametrize("field", ["error", "error_description", "message"])
def test_a_secret_that_a_server_repeats_is_replaced(field: str) -> None:
    """No message holds the secret, in whichever field it comes."""
    assert _wire.server_message({field: f"bad secret {SECRET}!"}, SECRET) == ", 'bad secret [secret]!'"


@pytest.mark.parametrize("start", range(193, 200))
def test_a_secret_at_the_cut_leaves_no_part_of_itself(start: int) -> None:
    """The secret is replaced before the text is cut: the beginning of a secret is secret, too."""
    message = _wire.server_message({"message": "x" * start + SECRET}, SECRET)

    assert message == f", {('x' * start + '[secret]')[:200]!r}"


# scrub


@pytest.mark.parametrize(
    ("secret", "spelling"),
    [
        pytest.param("s3cr3t", "s3cr3t", id="plain"),
        pytest.param("a+b/c==", "a+b/c==", id="base64"),
        pytest.param("a+b/c==", r"a+b\/c==", id="base64 in JSON with escaped slashes"),
        pytest.param("a+b/c==", "a%2Bb%2Fc%3D%3D", id="base64 in a URL"),
        pytest.param("a+b/c==", "a%2bb%2fc%3d%3d", id="base64 in a URL, lower case"),
        pytest.param("a+b/c==", "a%2Bb/c%3D%3D", id="base64 in a path"),
        pytest.param('a"b\\c', r"a\"b\\c", id="quote and backslash in JSON"),
        pytest.param('a"b\\c', "a%22b%5Cc", id="quote and backslash in a URL"),
        pytest.param("a b/c", "a%20b%2Fc", id="space and slash in a URL"),
        pytest.param("pä€s", "pä€s", id="beyond ASCII"),
        pytest.param("pä€s", r"p\u00e4\u20acs", id="beyond ASCII in JSON"),
        pytest.param("pä€s", r"p\u00E4\u20ACs", id="beyond ASCII in JSON, upper case"),
        pytest.param("pä€s", "p%C3%A4%E2%82%ACs", id="beyond ASCII in a URL"),
        pytest.param('a"b', r"a\\\"b", id="quote in JSON in JSON"),
        pytest.param("x\ud800", "x\\ud800", id="lone surrogate in JSON"),
        pytest.param("a.b*c", "a.b*c", id="what means something to a pattern"),
    ],
)
def test_a_secret_is_replaced_in_each_of_its_spellings(secret: str, spelling: str) -> None:
    """An echo of the token request may have escaped the secret."""
    assert _wire.scrub(f"1 {spelling} 2 {spelling}", secret) == "1 [secret] 2 [secret]"


def test_a_text_without_the_secret_is_left_as_it_is() -> None:
    """Only the secret is replaced: neither a part of it nor what its characters would match as a pattern."""
    text = 'abc a.b aXbXc a\\"b %2F + [secret'

    assert _wire.scrub(text, "a.b.c") == text


# Any text at all


@settings(max_examples=200, derandomize=True, deadline=None)
@given(text=st.text(), secret=st.text(min_size=1))
def test_odd_text_is_never_an_error(text: str, secret: str) -> None:
    """Each reader takes any text."""
    number, date, wait = _wire.number(text), _wire.http_date(text), _wire.requested_wait({"Retry-After": text}, NOW)

    assert number is None or math.isfinite(number)
    assert date is None or math.isfinite(date)
    assert wait is None or 0 <= wait <= 86_400
    assert isinstance(_wire.jwt_claims(text), dict)
    assert _wire.server_message({"message": text}, secret).isprintable()


@pytest.mark.parametrize(
    "spelled",
    [
        pytest.param(str, id="plain"),
        pytest.param(lambda secret: json.dumps(secret)[1:-1], id="JSON"),
        pytest.param(lambda secret: json.dumps(secret)[1:-1].replace("/", r"\/"), id="JSON with escaped slashes"),
        pytest.param(lambda secret: quote(secret, safe="", errors="replace"), id="URL"),
    ],
)
@settings(max_examples=100, derandomize=True, deadline=None)
@given(secret=st.text(st.characters(exclude_characters="[secrt]%"), min_size=1))
def test_any_secret_is_replaced_as_a_whole(spelled: Callable[[str], str], secret: str) -> None:
    """No part of any secret stays behind."""
    assert _wire.scrub(f"[{spelled(secret)}]", secret) == "[[secret]]"
