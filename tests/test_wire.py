"""What a server sends, read without trust, a pure room: JSON, JWTs, numbers, dates, waits, messages."""

import base64
import json
import math
import time
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
LONG_AGO = "Sun, 06 Nov 1994 08:49:37 GMT"
IN_THE_YEAR_9999 = "Fri, 31 Dec 9999 23:59:59 GMT"
SECRET = "s3cr3t"
DEEP = b"[" * 60_000
SHORT = settings(max_examples=200, derandomize=True, deadline=None)


def segment(content: bytes) -> str:
    """Return one part of a JWT."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def jwt_of(payload: bytes, header: bytes = b'{"alg":"none"}') -> str:
    """Return an unsigned JWT of exactly these bytes."""
    return f"{segment(header)}.{segment(payload)}."


def said(secret: str = SECRET, **fields: Any) -> str:
    """Return what a message quotes of these fields of an answer."""
    return _wire.server_words(fields, secret)


# JSON


def test_a_json_object_is_read_in_each_of_its_encodings():
    """RFC 8259 asks for UTF-8; a byte order mark, another Unicode encoding, or space around it does no harm."""
    bodies = [b'{"n": "\xc3\xa9"}', b'\xef\xbb\xbf{"n": "\xc3\xa9"}', b' \r\n\t{"n": "\\u00e9"}\n']
    bodies += ['{"n": "é"}'.encode(encoding) for encoding in ("utf-16", "utf-32-be")]
    assert [_wire.json_object(body) for body in bodies] == [{"n": "é"}] * 5


NO_OBJECTS = {
    "empty": [b"", b" \n"],
    "HTML": [b"<html>Bad gateway</html>"],
    "other values": [b"null", b"true", b"5", b'"text"', b"[]", b'[{"access_token": "t"}]'],
    "broken": [b'{"access_token": "t"', b'{"access_token": "t"} {}', b"{'access_token': 't'}"],
    "no text": [b'{"a": "\xff\xfe"}', b"\xef\xbb\xbf", b'\xff\xfe{"a": 1}', bytes(range(256))],
    "nested too deep": [DEEP, b'{"a": ' + DEEP, b'{"a": ' * 60_000],
}


@pytest.mark.parametrize("bodies", NO_OBJECTS.values(), ids=NO_OBJECTS)
def test_a_body_that_is_no_json_object_is_none(bodies):
    """Whatever else a server sends is None, not an error."""
    assert [_wire.json_object(body) for body in bodies] == [None] * len(bodies)


def test_an_integer_of_any_length_is_read():
    """An integer longer than Python converts does not make an object unreadable."""
    body = b'{"n": ' + b"9" * 10_000 + b', "small": -3, "real": 2.5}'
    assert _wire.json_object(body) == {"n": math.inf, "small": -3, "real": 2.5}


# JWTs


def test_the_claims_of_a_jwt_are_read_without_verifying_them():
    """The signature and the times are for the API to judge, and the key to verify them is its own."""
    not_now = {"exp": 1, "nbf": 99_999_999_999, "iat": 99_999_999_999}
    odd_times = {"exp": "text", "nbf": None, "iat": [], "jti": 5}
    for claims in ({}, not_now, odd_times, {"aud": "someone", "sub": "me", "scope": "a b", "env": "demo"}):
        assert _wire.jwt_claims(jwt.encode(claims, KEY, "HS256")) == claims
        assert _wire.jwt_claims(jwt.encode(claims, "", "none")) == claims
        assert _wire.jwt_claims(jwt_of(json.dumps(claims).encode(), header=b'{"alg":["odd"]}')) == claims


NO_JWTS = {
    "opaque": ["", "opaque", "..", "a.b.c", "é.é.é", "\ud800.\ud800.\ud800"],
    "cut short": [jwt.encode({"exp": 5}, KEY).rpartition(".")[0], jwt.encode({"exp": 5}, KEY)[:40]],
    "payload is no object": [jwt_of(payload) for payload in (b"[1]", b"5", b"null", b'"exp"', b"", b'{"exp": ')],
    "payload is no text": [jwt_of(b'{"a": "\xff"}')],
    "nested too deep": [jwt_of(b'{"exp": ' + DEEP), jwt_of(b'{"exp": 5}', header=b'{"alg": ' + DEEP)],
    "odd header": [jwt_of(b'{"exp": 5}', header=header) for header in (b"[]", b'{"b64": false}')],
}


@pytest.mark.parametrize("tokens", NO_JWTS.values(), ids=NO_JWTS)
def test_a_token_that_is_no_jwt_has_no_claims(tokens):
    """A token is opaque to a client: whatever can't be read is no error."""
    assert [_wire.jwt_claims(token) for token in tokens] == [{}] * len(tokens)


@pytest.mark.parametrize("header", [b'{"crit": ["new"], "new": 1}', b'{"crit": 5}', b'{"kid": 5}'])
def test_a_jwt_with_an_odd_header_is_no_error(header):
    """Versions of PyJWT differ on what makes a token unreadable; none of it is an error here."""
    assert _wire.jwt_claims(jwt_of(b'{"exp": 5}', header)) in ({}, {"exp": 5})


# Numbers, dates, waits


def test_a_number_is_read_from_int_float_and_text():
    """Servers send numbers as text, too."""
    given = [0, 3600, -2.5, "3600", " 12.5 ", "1e3", 10**300]
    numbers = [_wire.number(value) for value in given]
    assert numbers == [0, 3600, -2.5, 3600, 12.5, 1000, 1e300]
    assert {type(number) for number in numbers} == {float}


def test_what_is_no_finite_number_is_none():
    """Bools, NaN, infinities and anything else are ignored."""
    given = [None, True, False, math.nan, math.inf, -math.inf, 10**400, b"5", [5], {"seconds": 5}, 5j]
    given += ["", "soon", "nan", "-Infinity", "1e999", "9" * 10_000, "0x10"]
    assert [value for value in given if _wire.number(value) is not None] == []


def test_an_http_date_is_read_in_each_of_its_forms():
    """A recipient accepts all three forms (RFC 9110 §5.6.7), and an offset, though none is allowed."""
    forms = [LONG_AGO, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 09:49:37 +0100"]
    dates = [_wire.http_date(date) for date in forms]
    assert dates == [784_111_777.0] * 4
    assert {type(date) for date in dates} == {float}


def test_what_is_no_http_date_is_none():
    """A date that can't be read is None, not an error; what the year 0 means is open."""
    years = ["99999", "9" * 30, "9" * 5000]
    dates = [None, "", "tomorrow", "3600", " ", "Sun, 06 Nov", "Sun, 06 Foo 1994 08:49:37 GMT", "1994-11-06T08:49:37Z"]
    dates += [f"Thu, 01 Jan {year} 00:00:00 GMT" for year in years]
    assert [date for date in dates if _wire.http_date(date) is not None] == []
    assert _wire.http_date("Thu, 01 Jan 0000 00:00:00 GMT") in (None, 946_684_800.0)


WAITS = {
    "Retry-After: seconds": [("7", 7), ("1.5", 1.5), ("0", 0), ("-5", 0), ("86401", 86_400), ("1e18", 86_400)],
    "Retry-After: a date": [(IN_90_SECONDS, 90), (NOW_AS_DATE, 0), (LONG_AGO, 0), (IN_THE_YEAR_9999, 86_400)],
    "Retry-After: nonsense": [("soon", None), ("inf", None)],
    "X-RateLimit-Reset: seconds": [("42", 42), ("-1", 0), ("1e9", 86_400), (NOW_AS_DATE, None)],
    "X-RateLimit-Remaining: alone": [("0", None)],
    "Date: alone": [(NOW_AS_DATE, None)],
}
COMBINED_WAITS = [  # Retry-After, Date, X-RateLimit-Reset, X-RateLimit-Remaining, and the wait
    (LONG_AGO, "Sun, 06 Nov 1994 08:48:37 GMT", None, None, 60),
    (IN_90_SECONDS, "today", None, None, 90),
    (NOW_AS_DATE, IN_90_SECONDS, None, None, 0),
    *((None, None, "42", remaining, 42) for remaining in ("0", "-1", "x")),
    *((None, None, "42", remaining, None) for remaining in ("1", "299")),
    *((after, None, "42", None, wait) for after, wait in (("7", 7), ("0", 0), (IN_90_SECONDS, 90), ("soon", 42))),
    ("7", None, "42", "5", 7),
]


@pytest.mark.parametrize("header", WAITS)
def test_a_server_asks_for_a_wait(header):
    """In seconds or by a date, never below 0 or above a day."""
    for value, wait in WAITS[header]:
        assert _wire.requested_wait({header.split(":")[0]: value}, NOW) == wait
    assert _wire.requested_wait({}, NOW) is None


@pytest.mark.parametrize("row", COMBINED_WAITS, ids=str)
def test_of_two_waits_retry_after_counts_first(row):
    """Then the end of a window that is used up counts; a date is read by the clock of the server."""
    names = ["Retry-After", "Date", "X-RateLimit-Reset", "X-RateLimit-Remaining"]
    headers = {name: value for name, value in zip(names, row[:4], strict=True) if value is not None}
    assert _wire.requested_wait(headers, NOW) == row[4]


# What a server said


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, ""),
        ({"error": "invalid_client"}, "'invalid_client'"),
        ({"error_description": "Unknown", "error": "invalid_client"}, "'invalid_client: Unknown'"),
        ({"code": 401, "message": "Expired token."}, "'Expired token.'"),
        ({"message": "c", "error_description": "b", "error": "a", "detail": "d"}, "'a: b: c'"),
        ({"error": "", "message": "said"}, "'said'"),
        ({"error": "", "message": ""}, ""),
        ({"error": {"code": 5}, "error_description": 5, "message": None}, ""),
        ({"message": "x" * 200}, repr("x" * 200)),
        ({"message": "x" * 199 + "yz"}, repr("x" * 199 + "y")),
        *(({field: f"bad secret {SECRET}!"}, "'bad secret [secret]!'") for field in ("error", "message")),
        *(({"message": "x" * start + SECRET}, repr(("x" * start + "[secret]")[:200])) for start in range(193, 200)),
        *(({"access_token": token, "message": "hidden"}, "") for token in ("hidden", ["hidden"], {"jwt": "hidden"}, 7)),
        *(({"access_token": token, "message": "Down."}, "'Down.'") for token in (None, "")),
    ],
)
def test_what_a_server_said_is_quoted(fields, message):
    """In RFC 6749's fields or Mention Me's; the secret is replaced before the cut, and no token is quoted."""
    assert said(**fields) == message
    assert _wire.server_words(None, SECRET) == ""


def test_what_a_server_said_stays_within_its_line():
    """Control characters and quotes are escaped, so that no line of a log can be forged, nor a terminal driven."""
    message = said(message='a\'\r\n2027 INFO "forged"\x1b[2J\x00\u202e\ud800')
    assert message.isprintable()
    assert message == r"""'a\'\r\n2027 INFO "forged"\x1b[2J\x00\u202e\ud800'"""


SPELLINGS = {
    "s3cr3t": ["s3cr3t"],
    "a+b/c==": ["a+b/c==", r"a+b\/c==", "a%2Bb%2Fc%3D%3D", "a%2bb%2fc%3d%3d", "a%2Bb/c%3D%3D"],
    'a"b\\c': [r"a\"b\\c", "a%22b%5Cc"],
    "a b/c": ["a%20b%2Fc"],
    "pä€s": ["pä€s", r"p\u00e4\u20acs", r"p\u00E4\u20ACs", "p%C3%A4%E2%82%ACs"],
    'a"b': [r"a\\\"b"],
    "x\ud800": ["x\\ud800"],
    "a.b*c": ["a.b*c"],
}


@pytest.mark.parametrize("secret", SPELLINGS, ids=ascii)
def test_a_secret_is_replaced_in_each_of_its_spellings(secret):
    """An echo of the token request may have escaped it: as in JSON, also within JSON, or as in a URL."""
    for spelling in SPELLINGS[secret]:
        assert _wire.scrub(f"1 {spelling} 2 {spelling}", secret) == "1 [secret] 2 [secret]"


def test_a_text_without_the_secret_is_left_as_it_is():
    """Only the secret is replaced: neither a part of it nor what its characters would match as a pattern."""
    text = 'abc a.b aXbXc a\\"b %2F + [secret'
    assert _wire.scrub(text, "a.b.c") == text


@pytest.mark.parametrize("secret", [r"\\\\a", r"\\\\\\\\", "aaaa", r"\a\a\a", "%%%%a"])
@pytest.mark.parametrize("text", ["\\", "a", r"\a", "%5C"])
def test_a_secret_is_looked_for_in_linear_time(secret, text):
    """An answer may be made to waste time: 64 KiB of what is nearly the secret take no longer than a moment."""
    for size in (3_000, 65_536):  # the short one fails soon where the long one would take for ever
        begun = time.process_time()
        _wire.scrub(text * (size // len(text)), secret)
        assert time.process_time() - begun < 2


# Any text at all


@SHORT
@given(text=st.text(), secret=st.text(min_size=1))
def test_odd_text_is_never_an_error(text, secret):
    """Each reader takes any text."""
    wait = _wire.requested_wait({"Retry-After": text}, NOW)
    assert all(value is None or math.isfinite(value) for value in (_wire.number(text), _wire.http_date(text)))
    assert wait is None or 0 <= wait <= 86_400
    assert isinstance(_wire.jwt_claims(text), dict)
    assert said(secret, message=text).isprintable()


@SHORT
@given(secret=st.text(st.characters(exclude_characters="[secrt]%"), min_size=1))
def test_any_secret_is_replaced_as_a_whole(secret):
    """No part of any secret stays behind: as it is, in JSON, there with escaped slashes, in a URL."""
    in_json = json.dumps(secret)[1:-1]
    for spelled in (secret, in_json, in_json.replace("/", r"\/"), quote(secret, safe="", errors="replace")):
        assert _wire.scrub(f"[{spelled}]", secret) == "[[secret]]"
