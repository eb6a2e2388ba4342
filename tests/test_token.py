"""The access token: its three states, its lifetime, and the answers that hold none."""

import json
import math
import re
from email.utils import formatdate
from typing import Any, Literal, NamedTuple

import jwt
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from requests_mentionme._token import Token, parse_token
from requests_mentionme._wire import json_object, server_message

SECRET = "s3cr3t-of-the-client"
NOW = 1_800_000_000
MARGIN = 300
DAY = 86_400

SHORT = settings(max_examples=200, derandomize=True, deadline=None)
LONG = settings(max_examples=20_000, database=None, deadline=None)  # in each of six parts


def jwt_of(claims: dict[str, Any]) -> str:
    """Return an unsigned JWT."""
    return jwt.encode(claims, "", "none")


class Answer(NamedTuple):
    """A 2xx answer of the token endpoint, its `Date`, and when it was asked for it."""

    body: bytes
    date: str | None
    sent_at: float


def answer(body: bytes | dict[str, Any], *, date: float | str | None = None, sent_at: float = NOW) -> Answer:
    """Return a 2xx answer with this body, and with this `Date`: as it is, or of this time."""
    return Answer(
        body if isinstance(body, bytes) else json.dumps(body).encode(),
        formatdate(date, usegmt=True) if isinstance(date, float | int) else date,
        sent_at,
    )


def token_in(answer: Answer, margin: float = MARGIN) -> Token:
    """Return the token in an answer."""
    return parse_token(json_object(answer.body), answer.date, answer.sent_at, margin)


def token_for(lifetime: float, margin: float = MARGIN) -> Token:
    """Return a token that came with this `expires_in`."""
    return token_in(answer({"access_token": "t", "expires_in": lifetime}), margin)


def flaw_of(answer: Answer) -> ValueError:
    """Return the error that an answer causes."""
    with pytest.raises(ValueError, match=r"^(not )?with") as caught:
        token_in(answer)
    return caught.value


# The token


@pytest.mark.parametrize("value", ["opaque", "!", "~", "a.b-c_d=", jwt_of({"exp": NOW + 60})])
def test_a_token_is_taken_as_it_is(value: str) -> None:
    """Whatever a header can carry is sent as the bearer token, a JWT or not."""
    token = token_in(answer({"access_token": value, "expires_in": 60}))

    assert token.value == value
    assert token.authorization == f"Bearer {value}"
    assert token.obtained_at == NOW


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param({}, id="absent"),
        pytest.param({"token_type": None}, id="null"),
        pytest.param({"token_type": "Bearer"}, id="Bearer"),
        pytest.param({"token_type": "bearer"}, id="bearer"),
        pytest.param({"token_type": "BEARER"}, id="BEARER"),
    ],
)
def test_the_type_of_a_token_is_bearer_in_any_case_of_letters(kind: dict[str, str | None]) -> None:
    """RFC 6749 §5.1 compares it without case; an answer without one will do."""
    assert token_in(answer({"access_token": "t"} | kind)).value == "t"


def test_a_token_does_not_show_its_value() -> None:
    """What a debugger, a log or an assertion prints of it can't be used."""
    token = token_in(answer({"access_token": "hidden-token", "expires_in": 60}))

    for shown in (repr(token), str(token), f"{token}", repr([token])):
        assert "Token" in shown
        assert "hidden-token" not in shown


@pytest.mark.parametrize("attribute", ["value", "authorization", "obtained_at", "stale_at", "expired_at", "lifetime"])
def test_a_token_does_not_change(attribute: str) -> None:
    """Many threads read it without a lock."""
    with pytest.raises(AttributeError):
        setattr(token_for(60), attribute, 0)


# The three states


@pytest.mark.parametrize(
    ("lifetime", "margin", "stale_after", "expired_after"),
    [
        pytest.param(3600, 300, 3300, 3590, id="an hour"),
        pytest.param(DAY, 300, DAY - 300, DAY - 10, id="a day"),
        pytest.param(DAY, 7200, DAY - 7200, DAY - 10, id="a day, margin of two hours"),
        pytest.param(1500, 300, 1200, 1490, id="the margin is 20 %"),
        pytest.param(1000, 300, 800, 990, id="the margin is more than 20 %"),
        pytest.param(3600, 10**9, 2880, 3590, id="the margin is more than the lifetime"),
        pytest.param(200, 300, 160, 190, id="10 s are 5 %"),
        pytest.param(100, 300, 80, 95, id="10 s are more than 5 %"),
        pytest.param(20, 300, 16, 19, id="20 seconds"),
        pytest.param(1, 300, 0.8, 0.95, id="a second"),
        pytest.param(3600, 11, 3589, 3590, id="the margin is above the last moment"),
        pytest.param(40, 5, 35, 38, id="a short life, the margin is above the last moment"),
    ],
)
def test_a_token_is_fresh_then_stale_then_expired(
    lifetime: float, margin: float, stale_after: float, expired_after: float
) -> None:
    """Each state begins with its first moment: one tick of the clock before is the state before."""
    token = token_for(lifetime, margin)

    def state_before(moment: float) -> Literal["fresh", "stale", "expired"]:
        return token.state(math.nextafter(moment, -math.inf))

    assert token.lifetime == lifetime
    assert token.stale_at == pytest.approx(NOW + stale_after, abs=1e-6)
    assert token.expired_at == pytest.approx(NOW + expired_after, abs=1e-6)
    assert state_before(token.obtained_at) == "expired"
    assert token.state(token.obtained_at) == "fresh"
    assert token.state(math.nextafter(token.obtained_at, math.inf)) == "fresh"
    assert state_before(token.stale_at) == "fresh"
    assert token.state(token.stale_at) == "stale"
    assert token.state(math.nextafter(token.stale_at, math.inf)) == "stale"
    assert state_before(token.expired_at) == "stale"
    assert token.state(token.expired_at) == "expired"
    assert token.state(math.nextafter(token.expired_at, math.inf)) == "expired"
    assert token.state(NOW + lifetime) == "expired"


@pytest.mark.parametrize(
    ("lifetime", "margin", "expired_after"),
    [
        pytest.param(3600, 0, 3590, id="no margin"),
        pytest.param(3600, 5, 3590, id="the margin is below the last moment"),
        pytest.param(3600, 10, 3590, id="the margin is the last moment"),
        pytest.param(40, 0, 38, id="a short life, no margin"),
        pytest.param(40, 2, 38, id="a short life, the margin is the last moment"),
    ],
)
def test_a_margin_within_the_last_moment_means_no_stale_state(
    lifetime: float, margin: float, expired_after: float
) -> None:
    """Such a token is fresh until it is expired."""
    token = token_for(lifetime, margin)

    assert token.stale_at == token.expired_at == NOW + expired_after
    assert token.state(math.nextafter(token.expired_at, -math.inf)) == "fresh"
    assert token.state(token.expired_at) == "expired"


@pytest.mark.parametrize("lifetime", [1e-9, 1e-300, 5e-324])
def test_a_token_that_lives_less_than_a_tick_is_never_sent(lifetime: float) -> None:
    """Where the clock can't tell the end from the beginning, there is no moment to use a token in."""
    token = token_for(lifetime)

    assert token.obtained_at == token.stale_at == token.expired_at
    assert token.state(NOW) == "expired"


@pytest.mark.parametrize("set_back", [0.001, 1, 3600, DAY, NOW])
def test_a_clock_that_was_set_back_makes_a_token_expired(set_back: float) -> None:
    """How much is left can't be told then, so a new token is needed."""
    assert token_for(3600).state(NOW - set_back) == "expired"


# The lifetime


@pytest.mark.parametrize(
    ("expires_in", "claims", "date", "lifetime"),
    [
        # One measure is there.
        pytest.param(3600, {}, None, 3600, id="expires_in only"),
        pytest.param(0.5, {}, None, 0.5, id="expires_in of part of a second"),
        pytest.param(3600, {}, NOW + 99, 3600, id="expires_in beside a Date"),
        pytest.param(None, {"exp": 5000, "iat": 3200}, None, 1800, id="exp - iat only"),
        pytest.param(None, {"exp": NOW + 900}, NOW, 900, id="exp - Date only"),
        pytest.param(None, {"exp": NOW + 700}, None, 700, id="exp - local clock as last resort"),
        # The smallest of several.
        pytest.param(600, {"exp": NOW + 900, "iat": NOW - 900}, NOW, 600, id="expires_in is the smallest"),
        pytest.param(3600, {"exp": NOW + 900, "iat": NOW + 300}, NOW, 600, id="exp - iat is the smallest"),
        pytest.param(3600, {"exp": NOW + 600, "iat": NOW - 3000}, NOW, 600, id="exp - Date is the smallest"),
        # The local clock is asked last, and only without a Date.
        pytest.param(3600, {"exp": NOW + 60}, None, 3600, id="no local clock beside expires_in"),
        pytest.param(1, {"exp": NOW + 0.25}, None, 1, id="no local clock beside expires_in of a second"),
        pytest.param(None, {"exp": NOW + 60, "iat": NOW - 900}, None, 960, id="no local clock beside exp - iat"),
        pytest.param(None, {"exp": NOW + 60}, NOW - 900, 960, id="no local clock beside exp - Date"),
        pytest.param(None, {"exp": NOW + 700}, "yesterday", 700, id="local clock where Date is nonsense"),
        pytest.param(0, {"exp": NOW + 700}, None, 700, id="local clock where expires_in is 0"),
        pytest.param(None, {"exp": NOW + 700, "iat": NOW + 700}, None, 700, id="local clock where exp is iat"),
        # What is not positive does not count beside what is.
        pytest.param(3600, {"exp": NOW - 5, "iat": NOW}, NOW, 3600, id="past exp beside expires_in"),
        pytest.param(None, {"exp": NOW - 5, "iat": NOW - 605}, NOW, 600, id="past exp beside exp - iat"),
        pytest.param(None, {"exp": NOW + 900, "iat": NOW + 905}, NOW, 900, id="iat after exp beside exp - Date"),
        pytest.param(0, {"exp": NOW + 900}, NOW, 900, id="expires_in of 0 beside exp - Date"),
        pytest.param(-1, {"exp": 5000, "iat": 3200}, None, 1800, id="negative expires_in beside exp - iat"),
        # Nothing is given.
        pytest.param(None, {}, None, 300, id="none given"),
        pytest.param(None, {}, NOW, 300, id="only a Date"),
        pytest.param(None, {"iat": NOW}, NOW, 300, id="only iat"),
        # At most 24 hours.
        pytest.param(DAY, {}, None, DAY, id="a day"),
        pytest.param(DAY + 1, {}, None, DAY, id="more than a day in expires_in"),
        pytest.param(1e300, {}, None, DAY, id="absurd expires_in"),
        pytest.param(None, {"exp": 1e308, "iat": -1e308}, None, DAY, id="infinite exp - iat"),
        pytest.param(None, {"exp": NOW + 10 * DAY}, NOW, DAY, id="more than a day in exp - Date"),
        pytest.param(None, {"exp": NOW + 10 * DAY}, None, DAY, id="more than a day by the local clock"),
        # Types.
        pytest.param("3600", {}, None, 3600, id="expires_in as text"),
        pytest.param("59.5", {}, None, 59.5, id="expires_in as text of a float"),
        pytest.param(None, {"exp": "5000", "iat": "3200.5"}, None, 1799.5, id="exp and iat as text"),
        pytest.param(None, {"exp": 5000.25, "iat": 3200.0}, None, 1800.25, id="exp and iat as floats"),
        pytest.param(True, {}, None, 300, id="expires_in is true"),
        pytest.param(False, {}, None, 300, id="expires_in is false"),
        pytest.param(math.nan, {}, None, 300, id="expires_in is NaN"),
        pytest.param(math.inf, {}, None, 300, id="expires_in is infinite"),
        pytest.param(-math.inf, {}, None, 300, id="expires_in is minus infinity"),
        pytest.param(10**4000, {}, None, 300, id="expires_in has 4,000 digits"),
        pytest.param("an hour", {}, None, 300, id="expires_in is text"),
        pytest.param([3600], {}, None, 300, id="expires_in is a list"),
        pytest.param(None, {"exp": True, "iat": 0}, NOW, 300, id="exp is true"),
        pytest.param(None, {"exp": math.nan, "iat": 0}, NOW, 300, id="exp is NaN"),
        pytest.param(None, {"exp": math.inf, "iat": 0}, NOW, 300, id="exp is infinite"),
        pytest.param(None, {"exp": 10**400, "iat": 0}, NOW, 300, id="exp is an int beyond any float"),
        pytest.param(None, {"exp": "tomorrow", "iat": 0}, NOW, 300, id="exp is text"),
        pytest.param(None, {"exp": {}, "iat": 0}, NOW, 300, id="exp is an object"),
        pytest.param(None, {"exp": NOW + 900, "iat": True}, NOW, 900, id="iat is true"),
        pytest.param(None, {"exp": NOW + 900, "iat": math.nan}, NOW, 900, id="iat is NaN"),
        pytest.param(None, {"exp": NOW + 900, "iat": "now"}, NOW, 900, id="iat is text"),
    ],
)
def test_the_lifetime_is_the_smallest_positive_measure(
    expires_in: object, claims: dict[str, Any], date: float | str | None, lifetime: float
) -> None:
    """Of `expires_in`, `exp` - `iat` and `exp` - `Date`; by the local clock only where there is no other."""
    fields = {"access_token": jwt_of(claims)} | ({} if expires_in is None else {"expires_in": expires_in})

    token = token_in(answer(fields, date=date))

    assert token.lifetime == pytest.approx(lifetime, abs=1e-6)
    assert token.expired_at == pytest.approx(NOW + lifetime - min(10, lifetime / 20), abs=1e-6)


@pytest.mark.parametrize("expires_in", [pytest.param(60, id="given"), pytest.param(None, id="null")])
def test_a_token_that_is_no_jwt_has_the_lifetime_of_its_answer(expires_in: int | None) -> None:
    """An opaque token has no `exp`: `expires_in` counts, or five minutes."""
    fields = {"access_token": "opaque.not.jwt", "expires_in": expires_in}

    assert token_in(answer(fields, date=NOW)).lifetime == (expires_in or 300)


@pytest.mark.parametrize(
    ("expires_in", "claims", "date"),
    [
        pytest.param(0, {}, None, id="expires_in is 0"),
        pytest.param(0, {}, NOW, id="expires_in is 0 beside a Date"),
        pytest.param(-3600, {}, None, id="negative expires_in"),
        pytest.param(None, {"exp": NOW - 1}, None, id="past exp by the local clock"),
        pytest.param(None, {"exp": NOW}, None, id="exp is now by the local clock"),
        pytest.param(None, {"exp": NOW - 1}, NOW, id="past exp by Date"),
        pytest.param(None, {"exp": NOW}, NOW, id="exp is Date"),
        pytest.param(None, {"exp": NOW + 100}, NOW + 5000, id="past exp by Date, though not by the local clock"),
        pytest.param(None, {"exp": NOW - 100, "iat": NOW - 100}, None, id="exp is iat, past by the local clock"),
        pytest.param(None, {"exp": NOW - 100, "iat": NOW}, NOW, id="iat after exp, past by Date"),
        pytest.param(0, {"exp": NOW - 100}, NOW, id="all of them"),
        pytest.param(None, {"exp": 0}, None, id="exp is 0"),
        pytest.param(None, {"exp": 0}, NOW, id="exp is 0 beside a Date"),
    ],
)
def test_a_token_that_has_already_expired_is_an_error(
    expires_in: float | None, claims: dict[str, Any], date: float | None
) -> None:
    """Where a measure was given and none is positive, there is no token to use."""
    fields = {"access_token": jwt_of(claims), "expires_in": expires_in}

    assert "an access_token that has already expired" in str(flaw_of(answer(fields, date=date)))


@pytest.mark.parametrize("skew", [-10 * 365 * DAY, -5 * 3600, -1, 1, 5 * 3600, 10 * 365 * DAY])
@pytest.mark.parametrize(
    ("fields", "claims"),
    [
        pytest.param({"expires_in": 3600}, {"iat": NOW, "exp": NOW + 3600}, id="all measures"),
        pytest.param({"expires_in": 3600}, {}, id="expires_in"),
        pytest.param({}, {"iat": NOW, "exp": NOW + 3600}, id="exp - iat and exp - Date"),
        pytest.param({}, {"exp": NOW + 3600}, id="exp - Date"),
        pytest.param({"expires_in": 9999}, {"iat": NOW - 900, "exp": NOW + 3600}, id="from the server's cache"),
    ],
)
def test_a_wrong_local_clock_does_not_change_the_schedule(
    fields: dict[str, Any], claims: dict[str, Any], skew: float
) -> None:
    """From the server only lengths of time are taken."""
    response = answer({"access_token": jwt_of(claims)} | fields, date=NOW, sent_at=NOW + skew)

    token = token_in(response)

    assert token.lifetime == 3600
    assert token.obtained_at == NOW + skew
    assert token.stale_at == NOW + skew + 3300
    assert token.expired_at == NOW + skew + 3590


# Answers without a token


@pytest.mark.parametrize(
    ("body", "flaw"),
    [
        pytest.param(b"", "not with a JSON object", id="empty"),
        pytest.param(b"<html>Welcome</html>", "not with a JSON object", id="HTML"),
        pytest.param(b'["hidden-token"]', "not with a JSON object", id="list"),
        pytest.param(b'"hidden-token"', "not with a JSON object", id="text"),
        pytest.param(b'{"access_token": "hidden-token"', "not with a JSON object", id="cut short"),
        pytest.param(b'{"access_token": "hidden-token\xff"}', "not with a JSON object", id="invalid UTF-8"),
        pytest.param(b'{"access_token": ' + b"[" * 60_000, "not with a JSON object", id="60,000 brackets"),
        pytest.param({}, "without an access_token", id="empty object"),
        pytest.param({"token": "hidden-token"}, "without an access_token", id="another name"),
        pytest.param({"access_token": None}, "without an access_token", id="token is null"),
        pytest.param({"access_token": ""}, "without an access_token", id="token is empty"),
        pytest.param({"access_token": 5}, "without an access_token", id="token is a number"),
        pytest.param({"access_token": ["hidden-token"]}, "without an access_token", id="token is a list"),
        pytest.param({"access_token": {"jwt": "hidden-token"}}, "without an access_token", id="token is an object"),
        pytest.param({"error": f"bad {SECRET}"}, "without an access_token", id="error"),
        pytest.param(
            {"access_token": "hidden-token", "token_type": "mac"}, "with a token_type other than bearer", id="type mac"
        ),
        pytest.param(
            {"access_token": "hidden-token", "token_type": ""}, "with a token_type other than bearer", id="empty type"
        ),
        pytest.param(
            {"access_token": "hidden-token", "token_type": "bearer "},
            "with a token_type other than bearer",
            id="space in type",
        ),
        pytest.param(
            {"access_token": "hidden-token", "token_type": ["bearer"]},
            "with a token_type other than bearer",
            id="type is a list",
        ),
        pytest.param(
            {"access_token": "hidden-token", "token_type": True},
            "with a token_type other than bearer",
            id="type is true",
        ),
        pytest.param(
            {"access_token": "hidden-token", "token_type": 0}, "with a token_type other than bearer", id="type is 0"
        ),
        pytest.param(
            {"access_token": "hidden-token", "expires_in": 0},
            "with an access_token that has already expired",
            id="expired",
        ),
    ],
)
def test_an_answer_without_a_usable_token_is_an_error(body: bytes | dict[str, Any], flaw: str) -> None:
    """The error says what was wrong, and nothing that was in the answer."""
    assert flaw_of(answer(body)).args == (flaw,)


@pytest.mark.parametrize(
    "character",
    [
        pytest.param(" ", id="space"),
        pytest.param("\n", id="newline"),
        pytest.param("\r", id="carriage return"),
        pytest.param("\t", id="tab"),
        pytest.param("\x00", id="NUL"),
        pytest.param("\x1f", id="unit separator"),
        pytest.param("\x7f", id="DEL"),
        pytest.param("\x80", id="control character beyond ASCII"),
        pytest.param("é", id="Latin-1"),
        pytest.param("€", id="beyond Latin-1"),
        pytest.param("\ud800", id="lone surrogate"),
    ],
)
@pytest.mark.parametrize("place", ["{}hidden-token", "hidden{}token", "hidden-token{}"])
def test_a_token_that_a_header_cannot_carry_is_an_error(place: str, character: str) -> None:
    """Else `http.client` would raise an error that prints it, or a server would see a second header."""
    flaw = flaw_of(answer({"access_token": place.format(character), "expires_in": 60}))

    assert flaw.args == ("with an access_token that a header can't carry",)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"access_token": "hidden-token"', id="no JSON"),
        pytest.param({"access_token": "hidden token"}, id="unusable token"),
        pytest.param({"access_token": jwt_of({"exp": 1})}, id="expired token"),
    ],
)
def test_an_error_brings_no_other_that_holds_the_answer(body: bytes | dict[str, Any]) -> None:
    """Neither its cause nor its context shows what the endpoint sent."""
    flaw = flaw_of(answer(body))

    assert (flaw.__cause__, flaw.__context__) == (None, None)


# Any answer at all

TEXT = st.text(max_size=8)
ODD = st.sampled_from([None, True, False, "", [], {}, [1], {"a": 1}, "Bearer", "bearer", "mac", "9" * 5000, 10**400])
NUMBERS = st.one_of(
    st.integers(-5, 2 * DAY),
    st.integers(NOW - 2 * DAY, NOW + 2 * DAY),
    st.floats(0, 1000),
    st.floats(),
    st.integers(0, 5000).map(str),
    st.sampled_from(["NaN", "1e999", "-0", "0x10", " 7 ", "1_000", 0, 1e-320, 1e308, -1e308]),
)
CLAIMS = st.fixed_dictionaries({}, optional=dict.fromkeys(("exp", "iat"), NUMBERS | ODD | TEXT))
TOKENS = st.one_of(
    CLAIMS.map(jwt_of),
    CLAIMS.map(jwt_of),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)).map("hidden-token".__add__),
    st.text().map("hidden-token".__add__),
)
OBJECTS = st.fixed_dictionaries(
    {"access_token": TOKENS | ODD},
    optional={
        "token_type": st.sampled_from(["Bearer", "bearer"]) | ODD | TEXT,
        "expires_in": NUMBERS | ODD | TEXT,
        "error": TEXT | st.just(f"bad {SECRET}") | ODD,
        "message": TEXT | st.just("x" * 195 + SECRET),
    },
)
PIECES = st.one_of(
    st.sampled_from([b"{", b"}", b"[", b"]", b":", b",", b'"', b"-", b"NaN", b"1e999", b"null", b"\\ud800"]),
    st.sampled_from([b'"access_token"', b'"hidden-token"', b'"expires_in"', b'{"access_token":"hidden-token"']),
    st.sampled_from([b"\xff", b"\xef\xbb\xbf", b"9" * 5000, b"[" * 5000]),
)
BODIES = st.one_of(
    OBJECTS.map(lambda fields: json.dumps(fields).encode()),
    st.binary(),
    st.lists(PIECES).map(b"".join),
    st.binary().map(lambda inner: b'{"access_token": "hidden-token' + inner + b'", "expires_in": 60}'),
)
DATES = st.none() | st.integers(NOW - 2 * DAY, NOW + 2 * DAY).map(lambda at: formatdate(at, usegmt=True)) | st.text()
ANSWERS = st.builds(answer, BODIES, date=DATES, sent_at=st.floats(0, 2.0**33))
OBJECT_ANSWERS = st.builds(answer, OBJECTS, date=DATES, sent_at=st.floats(NOW - DAY, NOW + DAY))
FLAWS = {
    "not with a JSON object",
    "without an access_token",
    "with an access_token that a header can't carry",
    "with an access_token that has already expired",
    "with a token_type other than bearer",
}
MARGINS = st.sampled_from([0, 1, 10, 300, 10**6]) | st.floats(0, 2 * DAY)


def outcome_of(answer: Answer, margin: float) -> Token | ValueError:
    """Return the token in an answer, or why there is none; any other error is one of the test, too."""
    try:
        return token_in(answer, margin)
    except ValueError as flaw:
        return flaw


def check(answer: Answer, margin: float) -> None:
    """Assert all that is promised about any answer: a token that keeps its limits, or an error that shows nothing."""
    said = server_message(json_object(answer.body), SECRET)
    assert said.isprintable()
    assert SECRET not in said
    outcome = outcome_of(answer, margin)
    event(type(outcome).__name__)
    if not isinstance(outcome, Token):
        assert outcome.args[0] in FLAWS
        assert (outcome.__cause__, outcome.__context__) == (None, None)
        return
    assert not re.search("hidden-token|eyJ", repr(outcome))
    fields = json.loads(answer.body, parse_int=float)
    assert outcome.value == fields["access_token"]
    assert outcome.authorization == f"Bearer {outcome.value}"
    assert re.fullmatch("Bearer [!-~]+", outcome.authorization)
    assert outcome.obtained_at == answer.sent_at
    assert outcome.obtained_at <= outcome.stale_at <= outcome.expired_at <= answer.sent_at + outcome.lifetime
    assert 0 < outcome.lifetime <= DAY
    expires_in = fields.get("expires_in")
    if isinstance(expires_in, float) and 0 < expires_in < math.inf:
        assert outcome.lifetime <= expires_in


@SHORT
@given(answer=ANSWERS, margin=MARGINS)
def test_any_answer_gives_a_token_or_our_error(answer: Answer, margin: float) -> None:
    """Whatever the bytes of an answer are."""
    check(answer, margin)


@SHORT
@given(answer=OBJECT_ANSWERS, margin=MARGINS)
def test_any_object_gives_a_token_or_our_error(answer: Answer, margin: float) -> None:
    """Whatever the known fields of an answer hold."""
    check(answer, margin)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
@LONG
@given(answer=ANSWERS, margin=MARGINS)
def test_any_of_many_answers_gives_a_token_or_our_error(part: int, answer: Answer, margin: float) -> None:
    """As above, for long."""
    check(answer, margin)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
@LONG
@given(answer=OBJECT_ANSWERS, margin=MARGINS)
def test_any_of_many_objects_gives_a_token_or_our_error(part: int, answer: Answer, margin: float) -> None:
    """As above, for long."""
    check(answer, margin)
