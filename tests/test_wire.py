"""What a server sends, read without trust, a pure room: JSON, JWTs, numbers, dates, waits, messages."""

import base64
import json
import math

import jwt
import pytest

from requests_mentionme import _wire

KEY = "k" * 64
NOW = 1_800_000_000.0
NOW_AS_DATE = "Fri, 15 Jan 2027 08:00:00 GMT"
IN_90_SECONDS = "Fri, 15 Jan 2027 08:01:30 GMT"
LONG_AGO = "Sun, 06 Nov 1994 08:49:37 GMT"
IN_THE_YEAR_9999 = "Fri, 31 Dec 9999 23:59:59 GMT"
SECRET = "s3cr3t"
DEEP = b"[" * 60_000


def jwt_of(payload, header=b'{"alg":"none"}'):
    """Return an unsigned JWT of exactly these bytes."""
    segments = [base64.urlsafe_b64encode(content).rstrip(b"=").decode() for content in (header, payload)]
    return f"{'.'.join(segments)}."


def test_a_json_object_is_read_in_each_of_its_encodings():
    """RFC 8259 asks for UTF-8; a byte order mark, another Unicode encoding, or space around it does no harm."""
    bodies = ['{"n": "é"}'.encode(encoding) for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32-be")]
    assert [_wire.json_object(body) for body in (*bodies, b' \r\n\t{"n": "\\u00e9"}\n')] == [{"n": "é"}] * 5


def test_a_body_that_is_no_json_object_is_none():
    bodies = [b"", b" \n", b"<html>Bad gateway</html>", b"null", b"5", b'"text"', b"[]", b'[{"access_token": "t"}]']
    bodies += [b'{"access_token": "t"', b'{"access_token": "t"} {}', b"{'access_token': 't'}", DEEP, b'{"a": ' * 60_000]
    bodies += [b'{"a": "\xff\xfe"}', b"\xef\xbb\xbf", b'\xff\xfe{"a": 1}', bytes(range(256))]
    assert [body for body in bodies if _wire.json_object(body) is not None] == []


def test_an_integer_longer_than_python_converts_does_not_make_an_object_unreadable():
    body = b'{"n": ' + b"9" * 10_000 + b', "small": -3, "real": 2.5}'
    assert _wire.json_object(body) == {"n": math.inf, "small": -3, "real": 2.5}


def test_the_claims_of_a_jwt_are_read_without_verifying_them():
    """The signature and the times are for the API to judge, and the key to verify them is its own."""
    not_now = {"exp": 1, "nbf": 99_999_999_999, "iat": 99_999_999_999}
    odd_times = {"exp": "text", "nbf": None, "iat": [], "jti": 5}
    for claims in ({}, not_now, odd_times, {"aud": "someone", "sub": "me", "scope": "a b", "env": "demo"}):
        odd_header = jwt_of(json.dumps(claims).encode(), header=b'{"alg":["odd"]}')
        for token in (jwt.encode(claims, KEY, "HS256"), jwt.encode(claims, "", "none"), odd_header):
            assert _wire.jwt_claims(token) == claims


def test_a_token_that_is_no_jwt_has_no_claims():
    """A token is opaque to a client: whatever can't be read is no error."""
    signed = jwt.encode({"exp": 5}, KEY)
    tokens = ["", "opaque", "..", "a.b.c", "é.é.é", "\ud800.\ud800.\ud800", signed.rpartition(".")[0], signed[:40]]
    payloads = [b"[1]", b"5", b"null", b'"exp"', b"", b'{"exp": ', b'{"a": "\xff"}', b'{"exp": ' + DEEP]
    tokens += [jwt_of(payload) for payload in payloads]
    tokens += [jwt_of(b'{"exp": 5}', header) for header in (b"[]", b'{"b64": false}', b'{"alg": ' + DEEP)]
    assert [token for token in tokens if _wire.jwt_claims(token) != {}] == []
    for header in (b'{"crit": ["new"], "new": 1}', b'{"crit": 5}', b'{"kid": 5}'):  # versions of PyJWT differ on these
        assert _wire.jwt_claims(jwt_of(b'{"exp": 5}', header)) in ({}, {"exp": 5})


def test_a_number_is_read_from_int_float_and_text():
    """Servers send numbers as text, too. Bools, NaN, infinities and anything else are ignored."""
    numbers = [_wire.number(value) for value in (0, 3600, -2.5, "3600", " 12.5 ", "1e3", 10**300)]
    assert numbers == [0, 3600, -2.5, 3600, 12.5, 1000, 1e300]
    assert {type(number) for number in numbers} == {float}
    no_numbers = [None, True, False, math.nan, math.inf, -math.inf, 10**400, b"5", [5], {"seconds": 5}, 5j]
    no_numbers += ["", "soon", "nan", "-Infinity", "1e999", "9" * 10_000, "0x10"]
    assert [value for value in no_numbers if _wire.number(value) is not None] == []


def test_an_http_date_is_read_in_each_of_its_forms():
    """RFC 9110 §5.6.7 has three, all of which a recipient accepts; an offset, which is not allowed, does no harm."""
    forms = [LONG_AGO, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 09:49:37 +0100"]
    assert {repr(_wire.http_date(date)) for date in forms} == {"784111777.0"}
    no_dates = [None, "", " ", "tomorrow", "3600", "Sun, 06 Nov", LONG_AGO.replace("Nov", "Foo"), "1994-11-06"]
    no_dates += [f"Thu, 01 Jan {year} 00:00:00 GMT" for year in ("99999", "9" * 30, "9" * 5000)]
    assert [date for date in no_dates if _wire.http_date(date) is not None] == []
    assert _wire.http_date("Thu, 01 Jan 0000 00:00:00 GMT") in (None, 946_684_800.0)  # what that means is open


WAITS = [  # Retry-After, Date, X-RateLimit-Reset, X-RateLimit-Remaining, and the wait
    *((after, None, None, None, wait) for after, wait in (("7", 7), ("1.5", 1.5), ("0", 0), ("-5", 0))),
    *((after, None, None, None, 86_400) for after in ("86401", IN_THE_YEAR_9999)),
    *((after, None, None, None, wait) for after, wait in ((IN_90_SECONDS, 90), (NOW_AS_DATE, 0), (LONG_AGO, 0))),
    *((after, None, None, None, None) for after in (None, "soon", "inf")),
    (LONG_AGO, "Sun, 06 Nov 1994 08:48:37 GMT", None, None, 60),
    (IN_90_SECONDS, "today", None, None, 90),
    (NOW_AS_DATE, IN_90_SECONDS, None, None, 0),
    *((None, None, reset, None, wait) for reset, wait in (("42", 42), ("-1", 0), ("1e9", 86_400), (NOW_AS_DATE, None))),
    *((None, None, "42", left, wait) for left, wait in (("0", 42), ("-1", 42), ("x", 42), ("1", None))),
    *((after, None, "42", None, wait) for after, wait in (("7", 7), ("0", 0), (IN_90_SECONDS, 90), ("soon", 42))),
    ("7", None, "42", "5", 7),
    *((None, date, None, remaining, None) for date, remaining in ((NOW_AS_DATE, None), (None, "0"))),
]


@pytest.mark.parametrize(("after", "date", "reset", "remaining", "wait"), WAITS)
def test_a_server_asks_for_a_wait(after, date, reset, remaining, wait):
    """In 0 seconds to a day, or by a date of its own clock; `Retry-After` first, then the end of a window used up."""
    named = {"Retry-After": after, "Date": date, "X-RateLimit-Reset": reset, "X-RateLimit-Remaining": remaining}
    headers = {name: value for name, value in named.items() if value is not None}
    assert _wire.requested_wait(headers, NOW) == wait


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (None, ""),
        ({}, ""),
        ({"error": "invalid_client"}, "'invalid_client'"),
        ({"message": "c", "error_description": "b", "error": "a", "detail": "d"}, "'a: b: c'"),
        ({"error": "", "message": "said"}, "'said'"),
        ({"error": {"code": 5}, "error_description": 5, "message": None}, ""),
        ({"message": "x" * 199 + "yz"}, repr("x" * 199 + "y")),
        *(({field: f"bad secret {SECRET}!"}, "'bad secret [secret]!'") for field in ("error", "message")),
        *(({"message": "x" * start + SECRET}, repr(("x" * start + "[secret]")[:200])) for start in range(193, 200)),
        *(({"access_token": token, "message": "hidden"}, "") for token in ("hidden", ["hidden"], 7)),
        *(({"access_token": token, "message": "Down."}, "'Down.'") for token in (None, "")),
        ({"message": 'a\'\r\n2027 "b"\x1b[2J\x00\u202e\ud800'}, r"""'a\'\r\n2027 "b"\x1b[2J\x00\u202e\ud800'"""),
    ],
)
def test_what_a_server_said_is_quoted(fields, message):
    """The secret is replaced before the cut, no token is quoted, no line of a log can be forged, no terminal driven."""
    assert _wire.server_words(fields, SECRET) == message
    assert message.isprintable()


SPELLINGS = {
    "a+b/c==": ["a+b/c==", r"a+b\/c==", "a%2Bb%2Fc%3D%3D", "a%2bb%2fc%3d%3d", "a%2Bb/c%3D%3D"],
    'a"b\\c': [r"a\"b\\c", "a%22b%5Cc", r"a\\\"b\\\\c"],
    "pä€s": ["pä€s", r"p\u00e4\u20acs", r"p\u00E4\u20ACs", "p%C3%A4%E2%82%ACs"],
    "a b": ["a+b", "a%20b"],
    "1\n2\r3\t4\f5": [r"1\n2\r3\t4\f5"],
    "x\ud800": ["x\\ud800"],
    "\\\\": ["\\\\", "%5C%5c", "\\\\\\\\"],
}


@pytest.mark.parametrize("secret", SPELLINGS, ids=ascii)
def test_a_secret_is_replaced_in_each_of_its_spellings(secret):
    """An echo of the token request may have escaped it: as in JSON, also within JSON, or as in a URL."""
    for spelling in SPELLINGS[secret]:
        assert _wire.scrub(f"1 {spelling} 2 {spelling}", secret) == "1 [secret] 2 [secret]"


def test_what_stands_beside_a_secret_or_is_shorter_stays():
    assert _wire.scrub("1234", "1\n2\n34") == "1234"
    assert _wire.scrub("1 cs\\ 2", "cs") == "1 [secret]\\ 2"
    assert _wire.scrub("1 cs 2", "cs\\") == "1 [secret] 2"  # whose backslash was lost on the way
    assert _wire.scrub("%ff cs %ff", "cs") == "%ff [secret] %ff"
