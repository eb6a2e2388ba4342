"""What must hold for any answer, any stored text and any URL, through the public class.

Each property is tried with the same hundred examples or so; with `pytest -m slow`, with many others each time.
"""

import io
import itertools
import json
import re
from collections import defaultdict
from email.utils import formatdate
from urllib.parse import urlsplit

import jwt
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from in_memory import Answer, TokenEndpoint, auth_with, session_with
from urllib3 import HTTPResponse
from urllib3.util import parse_url

from requests_mentionme import DEMO, PRODUCTION, Environment, TokenResponseError

SECRET = "the-s3cret"  # of `auth_with`
NOW = 1_767_268_800
DAY = 86_400
SENT_AS_IT_IS = re.compile("[!-~]+")  # by `http.client`: visible ASCII


def holds(assertion, inputs, examples):
    profile = settings(max_examples=examples, derandomize=examples < 1000, database=None, deadline=None)
    profile(given(inputs)(assertion))()


def examples(short, long):
    return pytest.mark.parametrize("examples", [short, pytest.param(long, marks=pytest.mark.slow)])


TEXT = st.text(max_size=8)
ODD = st.sampled_from([None, True, False, "", [], {}, [1], {"a": 1}, "Bearer", "bearer", "mac", "9" * 4400, 10**400])
NUMBERS = st.integers(-5, 2 * DAY) | st.integers(NOW - 2 * DAY, NOW + 2 * DAY) | st.floats(0, 1000) | st.floats()
NUMBERS |= st.sampled_from(["3600", "NaN", "1e999", "-0", "0x10", " 7 ", "1_000", 0, 1e-320, 1e308, -1e308])
CLAIMS = st.fixed_dictionaries({}, optional=dict.fromkeys(("exp", "iat"), NUMBERS | ODD | TEXT))
VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)
ALMOST_VISIBLE = st.text(st.characters(min_codepoint=0x1F, max_codepoint=0x80), min_size=1, max_size=20)
TOKENS = CLAIMS.map(lambda claims: jwt.encode(claims, "", "none"))
TOKENS |= (VISIBLE | ALMOST_VISIBLE | st.text()).map("hidden".__add__)
OBJECTS = st.fixed_dictionaries(
    {"access_token": TOKENS | TOKENS | ODD},
    optional={
        "token_type": st.sampled_from(["Bearer", "bearer"]) | ODD | TEXT,
        "expires_in": NUMBERS | ODD | TEXT,
        "error": TEXT | st.just(f"bad {SECRET}") | ODD,
        "message": TEXT | st.just("x" * 195 + SECRET),
    },
)
PIECES = st.sampled_from([b"{", b"}", b"[", b"]", b":", b",", b'"', b"-", b"NaN", b"1e999", b"null", b"\\ud800"])
PIECES |= st.sampled_from([b'"access_token"', b'"hidden"', b'"expires_in"', b'{"access_token":"hidden"'])
PIECES |= st.sampled_from([b"\xff", b"\xef\xbb\xbf", b"9" * 4400, b"[" * 1500])
BODIES = st.binary() | st.lists(PIECES, max_size=6).map(b"".join)
BODIES |= st.binary().map(lambda inner: b'{"access_token": "hidden' + inner + b'", "expires_in": 60}')
BODIES |= OBJECTS.map(lambda fields: json.dumps(fields).encode())
DATES = st.none() | st.integers(NOW - 2 * DAY, NOW + 2 * DAY).map(lambda at: formatdate(at, usegmt=True)) | st.text()
ANSWERS = st.tuples(BODIES, DATES, st.sampled_from([-DAY, 0, DAY]))


@examples(100, 30_000)
def test_any_answer_gives_a_token_with_an_end_or_an_error_that_shows_nothing(monkeypatch, examples):
    """A token is given as it came, for no longer than a day or what `expires_in` says."""
    now = NOW
    monkeypatch.setattr("time.time", lambda: now)
    monkeypatch.setattr("time.monotonic", lambda: now)  # not by freezegun, whose clocks are slow to read

    def assertion(answer):
        nonlocal now
        body, date, clock_is_ahead = answer
        now = NOW + clock_is_ahead
        bodies = itertools.chain([body], itertools.repeat(b'{"access_token": "another"}'))

        def put_body(response, **_):
            response.raw = HTTPResponse(io.BytesIO(next(bodies)), preload_content=False)

        endpoint = TokenEndpoint(Answer(headers={} if date is None else {"Date": date}))
        session = session_with(endpoint)
        session.hooks["response"].append(put_body)
        auth = auth_with(endpoint, session=session)
        try:
            token = auth.access_token()
        except TokenResponseError as error:
            token = error
        if isinstance(token, TokenResponseError):
            assert str(token).isprintable()
            text = f"{token} {token!r} {token.__cause__!r} {token.__context__!r}"
            assert not any(hidden in text for hidden in (SECRET, "hidden", "eyJ"))
            return
        fields = json.loads(body)
        assert token == fields["access_token"]
        assert SENT_AS_IT_IS.fullmatch(token)
        assert isinstance(auth.claims(), dict)
        expires_in = fields.get("expires_in")
        now += expires_in if type(expires_in) in (int, float) and 0 < expires_in < DAY else DAY
        assert auth.access_token() == "another"

    holds(assertion, ANSWERS, examples)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
OBTAINED = st.floats(NOW - 2 * DAY, NOW + 2 * DAY) | JSON
ALMOST_STORED = st.fixed_dictionaries(
    {"access_token": ALMOST_VISIBLE | JSON, "obtained_at": OBTAINED, "lifetime": st.floats(-1, DAY) | JSON}
)


@examples(100, 20_000)
def test_no_text_in_the_store_leads_to_an_error_or_to_a_token_that_no_header_can_carry(clock, examples):
    def assertion(text):
        token = auth_with(TokenEndpoint("asked-for"), store=defaultdict(lambda: text)).access_token()
        assert SENT_AS_IT_IS.fullmatch(token)
        assert token == "asked-for" or json.loads(text)["access_token"] == token

    holds(assertion, st.text() | st.binary() | (JSON | ALMOST_STORED).map(json.dumps), examples)


BASE_URLS = ["https://kiosk.example:8443", "http://127.0.0.1:8080", "http://[::1]", "https://k.s"]
ENVIRONMENTS = [PRODUCTION, DEMO, *map(Environment.at, BASE_URLS)]
TRICKS = st.sampled_from(["//", ".evil.example", "evil.example/", "\\@evil.example", "user:pw@", "evil-", "https://"])
TRICKS |= st.sampled_from("@\\/?#%:.;&-_[] \t\n\r\x00\x7f0kKsS\u017f\u212a\u0131\u0130\u00ad\u200b")
TRICKS |= st.sampled_from("\u2024\u2025\u3002\uff0e\uff0f\uff1a\uff20\uff3c\uff4d\u2100\ufeff\ud800")
TRICKS |= st.sampled_from(["%2e", "%40", "%2f", "%5c", "%00", "%09", "xn--", ":443", ":80", ":8443", ":0443"])
TRICKS |= st.sampled_from(["@evil.example", ":443@evil.example"])


@st.composite
def urls_in_disguise(draw):
    environment = draw(st.sampled_from(ENVIRONMENTS))
    url = draw(st.sampled_from(sorted(environment.origins)))
    url += draw(st.sampled_from(["", "", ":443", ":80"])) + draw(st.sampled_from(["", "/", "/api", "?q=1", "#f"]))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(url)))
        cut = url[start : start + draw(st.integers(0, 2))]
        new = draw(st.sampled_from([cut[::-1], "", cut.swapcase()]) | TRICKS)
        url = url[:start] + new + url[start + len(cut) :]
    return environment, url


def destinations(url):
    """Return where the two parsers on the way to a connection see a URL lead to; none where one of them refuses it."""
    try:
        seen = [(part.scheme, part.hostname, part.port) for part in (urlsplit(url), parse_url(url))]
    except ValueError:
        return set()
    return {(scheme, host and host.strip("[]"), port or {"https": 443}.get(scheme, 80)) for scheme, host, port in seen}


def prepared(url):
    try:
        return requests.Request("GET", url).prepare().url
    except (requests.RequestException, ValueError):
        return None


@examples(200, 45_000)
def test_a_request_with_a_token_leads_to_an_origin_of_the_environment(examples):
    """As both `urllib` and `urllib3` see its URL: as it is (redirects have it so), and as it is prepared."""
    auths = {each: auth_with(TokenEndpoint(lifetime=DAY), environment=each) for each in ENVIRONMENTS}

    def assertion(disguise):
        environment, url = disguise
        allowed = set(itertools.chain.from_iterable(map(destinations, environment.origins)))
        for sent in (url, prepared(url)):
            request = requests.Request("GET", "https://host.example").prepare()
            request.url = sent
            if "Authorization" in auths[environment](request).headers:
                assert destinations(sent) <= allowed
                assert len(destinations(sent)) == 1 or prepared(sent) is None

    holds(assertion, urls_in_disguise(), examples)
