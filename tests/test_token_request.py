"""The token request: what is sent and by which way, its tries and its budget, what it accepts, and what its errors say.

What concerns bytes and connections runs against a server on a loopback port. What concerns statuses, headers and times
runs against an endpoint in memory. `proofs/test_fault_matrix.py` shows each fault at each moment of a token's life.
"""

import gc
import json
import pickle
import ssl
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

import in_memory
import pytest
import requests
import responses
import trustme
from freezegun.api import FrozenDateTimeFactory
from in_memory import auth_with
from loopback import Answer, Loopback, make_jwt, token_answer
from requests.exceptions import ProxyError, RetryError, SSLError
from requests.utils import select_proxy

import requests_mentionme
from requests_mentionme import (
    InvalidClientError,
    MentionMeAuth,
    TokenEndpointError,
    TokenResponseError,
)

SECRET = "cs_never-to-be-seen"
JWT = make_jwt()
OK = token_answer(JWT, 1000)
ENDLESS: dict[str, Any] = {"body": b"x" * 65_536, "times": 3200}  # 200 MB


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A token endpoint that grants a token."""
    with Loopback(OK) as running:
        yield running


@pytest.fixture
def waits(clock: FrozenDateTimeFactory, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between tries. Only the frozen clock sees them pass, and each is as long as its jitter allows."""
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        clock.tick(seconds)

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("random.uniform", lambda _, longest: longest)
    return waited


def auth_at(server: Loopback, **options: Any) -> MentionMeAuth:
    """Return an auth whose tokens come from *server*."""
    return MentionMeAuth("ci_sample", SECRET, environment=server.url, **options)


def failure(auth: MentionMeAuth) -> Any:
    """Return the error that asking for a token ends in."""
    with pytest.raises(requests.RequestException) as caught:
        auth.access_token()
    return caught.value


# What is sent


@pytest.mark.parametrize("lent", [None, requests.Session()], ids=["own session", "lent session"])
def test_a_token_request_holds_exactly_what_is_documented(server, monkeypatch, tmp_path, lent):
    """It is a POST of three JSON fields, with the headers that it needs and none that a `.netrc` file would add."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login netrc-user password netrc-password\n", encoding="ascii")
    monkeypatch.setenv("NETRC", str(netrc))
    requests.post(server.url)
    assert "authorization" in server.requests.pop().headers
    assert auth_at(server, session=lent).access_token() == JWT
    [request] = server.requests
    assert (request.method, request.target) == ("POST", "/api/oauth/token")
    assert request.json() == {"client_id": "ci_sample", "client_secret": SECRET, "grant_type": "client_credentials"}
    assert request.headers == {
        "host": f"127.0.0.1:{server.port}",
        "user-agent": f"requests-mentionme/{requests_mentionme.__version__}",
        "accept": "application/json",
        "accept-encoding": "identity",
        "connection": "keep-alive",
        "content-type": "application/json",
        "content-length": str(len(request.body)),
    }


# Redirects


class Eager(requests.Session):
    """A session that finds a target to follow in each redirect."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return the URL that was asked."""
        return resp.url if resp.is_redirect or resp.status_code == 307 else None


REDIRECTS = [(status, "{other}/api/oauth/token") for status in (301, 302, 303, 307, 308)]
REDIRECTS += [(307, location) for location in ("/api/oauth/token", "//127.0.0.1:{port}/", "http://[", "http://h:port/")]


@pytest.mark.parametrize("lent", [None, requests.Session(), Eager()], ids=["own session", "lent session", "eager one"])
@pytest.mark.parametrize(("status", "location"), REDIRECTS)
def test_a_redirect_is_not_followed(server, status, location, lent):
    """It is an error after one request. The other host sees nothing of the secret."""
    with Loopback(OK) as other:
        server.play(Answer(status, b"moved", {"Location": location.format(other=other.url, port=other.port)}), OK)
        error = failure(auth_at(server, session=lent))
        assert type(error) is TokenEndpointError
        assert (error.response.status_code, error.response.text) == (status, "moved")
        assert (len(server.requests), other.connections) == (1, 0)


# Proxies and certificate authorities

PROXY = "http://proxy.example:3128"
KIOSK = "https://kiosk.example"
LOCAL = [f"http://{host}:8080" for host in ("127.0.0.1", "localhost", "[::1]", "127.8.9.10")]
PROXIES = [  # a token URL, what names the proxy, and whether it is used
    *[(url, [by], False) for url in LOCAL for by in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "session")],
    *[(KIOSK, [by], True) for by in ("HTTPS_PROXY", "ALL_PROXY", "session")],
    *[(KIOSK, by, False) for by in (["HTTP_PROXY"], ["HTTPS_PROXY", "NO_PROXY"])],
]


@pytest.mark.parametrize(("url", "named_by", "is_used"), PROXIES, ids=[f"{url}, {by}" for url, by, _ in PROXIES])
def test_a_proxy_is_used_for_any_token_url_but_one_on_this_machine(monkeypatch, url, named_by, is_used):
    """It is the environment's or the session's. Plain `http` is allowed here, and a proxy would read the secret."""
    for name in named_by:
        monkeypatch.setenv(name, "kiosk.example" if name == "NO_PROXY" else PROXY)
    with requests.Session() as session, responses.RequestsMock() as web:
        if "session" in named_by:
            session.proxies = {"http": PROXY, "https": PROXY, "all": PROXY}
        web.post(f"{url}/api/oauth/token", body=OK.body)
        for lent in (session,) if "session" in named_by else (None, session):
            MentionMeAuth("ci_sample", SECRET, environment=url, session=lent).access_token()
            request: Any = web.calls[-1].request
            assert select_proxy(request.url, request.req_kwargs["proxies"]) == (PROXY if is_used else None)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "UNUSED"])
@pytest.mark.parametrize("name", ["localhost", "mention-me.com"])
def test_tls_is_verified_with_the_bundle_that_the_environment_names(tmp_path, monkeypatch, variable, name):
    """Without it, or for another host, it is an `SSLError` after one connection: no fault that passes."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    monkeypatch.setenv(variable, str(tmp_path / "ca.pem"))
    with Loopback(OK, tls=context) as server:
        if variable != "UNUSED" and name == server.host:
            assert auth_at(server).access_token() == JWT
        else:
            assert type(failure(auth_at(server))) is SSLError
            assert (server.connections, server.requests) == (1, [])


# A session that is lent


def test_a_lent_session_is_used_with_all_its_settings_but_its_auth():
    """Adapters, CA, headers and hooks are those of the session; the library's own headers come first."""
    seen: list[int] = []
    endpoint = in_memory.TokenEndpoint()
    endpoint.send = mock.Mock(wraps=endpoint.send)
    lent = in_memory.session_with(endpoint)
    lent.verify = "a-bundle.pem"
    lent.cert = "a-certificate.pem"
    lent.auth = mock.Mock()
    lent.headers.update({"X-Team": "growth", "User-Agent": "caller/1", "Accept-Encoding": "gzip"})
    lent.hooks["response"].append(lambda response, **_: seen.append(response.status_code))
    auth_with(endpoint, session=lent, timeout=(3, 4)).access_token()
    lent.auth.assert_not_called()
    options = endpoint.send.call_args.kwargs
    assert (options["verify"], options["cert"], options["stream"]) == ("a-bundle.pem", "a-certificate.pem", True)
    assert options["timeout"] == (pytest.approx(3), pytest.approx(4))
    headers = endpoint.requests[0].headers
    assert headers["X-Team"] == "growth"
    assert headers["User-Agent"] == f"requests-mentionme/{requests_mentionme.__version__}"
    assert headers["Accept-Encoding"] == "identity"
    assert seen == [200]


def test_a_session_may_be_lent_to_its_own_auth(server):
    """One session for the API and for its tokens is no recursion."""
    server.play(OK, Answer(body=b"{}"))
    with requests.Session() as session:
        session.auth = auth_at(server, session=session)
        assert session.get(f"{server.url}/customers", timeout=5).ok
    assert [request.headers.get("authorization") for request in server.requests] == [None, f"Bearer {JWT}"]


class Tenanted(requests.Session):
    """A session that overrides how it sends, with what it keeps in slots. One slot is empty, an attribute is lacking.

    Its finalizer closes it.
    """

    __slots__ = ("__mark", "region", "tenant")

    def __init__(self) -> None:
        super().__init__()
        self.tenant = "growth"
        self.__mark = "mark"
        del self.max_redirects

    def __del__(self) -> None:
        self.close()

    def request(self, method: Any, url: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        """Send what a slot holds along."""
        kwargs["headers"] = {**kwargs["headers"], "X-Tenant": self.tenant}
        return super().request(method, url, **kwargs)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send what the private slot holds along."""
        request.headers["X-Mark"] = self.__mark
        return super().send(request, **kwargs)


class Branch(Tenanted):
    """A session with slots of a base class, and none of its own."""


@pytest.mark.parametrize("kind", [requests.Session, Branch])
def test_a_lent_session_of_any_class_is_neither_changed_nor_closed(server, waits, kind):
    """Its connection, attributes, slots, hooks and cookies stay, whatever comes of a renewal; its cookies go out."""
    lent = kind()
    lent.cookies.set("mine", "1")
    lent.auth = ("user", "password")
    lent.hooks["response"].append(lambda *_, **__: None)
    auth = auth_at(server, session=lent)

    def state() -> dict[str, Any]:
        held = {name: (id(value), repr(value)) for name, value in vars(lent).items()}
        return {**held, "hooks": {name: list(hooks) for name, hooks in lent.hooks.items()}}

    before = state()
    for status in (200, 302, 401, 503, 200):
        server.play(replace(OK, status=status, headers={"Set-Cookie": "theirs=1", "Location": "/"}))
        auth.invalidate()
        if status == 200:
            auth.access_token()
        else:
            assert failure(auth).response.status_code == status
        gc.collect()
    assert state() == before
    assert {request.connection for request in server.requests} == {1}
    assert len(server.requests) == 5 + len(waits) == 7
    for request in (server.requests[0], server.requests[-1]):
        assert request.headers["cookie"] == "mine=1"
        assert "authorization" not in request.headers
        tenant = (request.headers.get("x-tenant"), request.headers.get("x-mark"))
        assert tenant == (("growth", "mark") if issubclass(kind, Tenanted) else (None, None))
    lent.close()
    assert server.until(lambda: not server.open)


# A session of each renewal's own

OUTCOMES = {"a token": OK, "a redirect": Answer(302), "no JSON": Answer(), "an interrupt": Answer(503)}


@pytest.mark.parametrize("answer", OUTCOMES.values(), ids=OUTCOMES)
def test_each_renewal_closes_a_connection_of_its_own(server, monkeypatch, answer):
    """No session is lent, so none is left open, stale or shared with a forked process. Nor does Ctrl-C leave one."""
    monkeypatch.setattr("time.sleep", mock.Mock(side_effect=KeyboardInterrupt))
    server.play(answer)
    auth = auth_at(server)
    for number in (1, 2):
        auth.invalidate()
        with nullcontext() if answer is OK else pytest.raises((requests.RequestException, KeyboardInterrupt)):
            auth.access_token()
        assert server.connections == number
        assert server.until(lambda: not server.open)


# Tries, waits, and the budget

STATUSES = [  # the error that an answer becomes, and the tries
    *[(status, TokenEndpointError, 3) for status in (429, 500, 503, 599)],
    *[(status, InvalidClientError, 1) for status in (400, 401, 403)],
    *[(status, TokenEndpointError, 1) for status in (300, 302, 304, 404, 405, 499)],
    (200, TokenResponseError, 1),
]
FAULTS = [(in_memory.Answer(status), error, tries) for status, error, tries in STATUSES]
FAULTS += [(error(), error, 3) for error in (requests.ConnectTimeout, ProxyError)]
FAULTS += [(error(), error, 1) for error in (requests.ReadTimeout, SSLError, RetryError)]


@pytest.mark.parametrize(
    ("fault", "kind", "tries"), FAULTS, ids=[getattr(fault, "status", repr(fault)) for fault, _, _ in FAULTS]
)
def test_a_fault_that_may_pass_is_tried_three_times_in_all_and_any_other_once(waits, fault, kind, tries):
    """A refusal or a certificate is final; after a read timeout the endpoint may be at work; an adapter has retried.

    The last try tells what went wrong, and no wait follows it.
    """
    endpoint = in_memory.TokenEndpoint(*[fault] * 3)
    error = failure(auth_with(endpoint))
    assert type(error) is kind
    assert (endpoint.count, waits) == (tries, [0.5, 1.0][: tries - 1])
    if kind in (InvalidClientError, TokenEndpointError):
        assert error.response.status_code == fault.status
        assert error.request is not None


def test_waits_grow_and_are_jittered(monkeypatch):
    """Each is drawn from the upper half of a range that doubles, so that a fleet does not come back at once."""
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    auth = auth_with(in_memory.TokenEndpoint(*[in_memory.Answer(503)] * 90))
    for _ in range(30):
        failure(auth)
    for drawn, least, most in ((waited[::2], 0.25, 0.5), (waited[1::2], 0.5, 1.0)):
        assert len(drawn) == 30
        assert least <= min(drawn) < least * 1.3
        assert most * 0.85 < max(drawn) <= most


FITS = {
    "just fits": ((5, 10), "29.9", [29.9], None),
    "the whole budget": ((5, 10), "30", [], 30),
    "a backoff that does not fit": ((0.1, 0.15), "0", [], 0),
}


@pytest.mark.parametrize(("timeout", "named", "waited", "retry_after"), FITS.values(), ids=FITS)
def test_a_wait_is_not_begun_if_it_does_not_fit_the_budget(waits, timeout, named, waited, retry_after):
    """The budget of all tries is twice (connect + read); beyond it the error comes at once and tells the time."""
    busy = in_memory.Answer(429, headers={"Retry-After": named})
    endpoint = in_memory.TokenEndpoint(*[busy] * (1 if retry_after is None else 3))
    auth = auth_with(endpoint, timeout=timeout)
    if retry_after is None:
        assert auth.access_token() == "token-2"
    else:
        assert failure(auth).retry_after == retry_after
    assert (endpoint.count, waits) == (len(waited) + 1, waited)


@pytest.mark.parametrize(("overslept", "timeout"), [(0, (5, 6)), (3, (3, 3)), (50, (0.001, 0.001))])
def test_a_try_has_no_longer_timeouts_than_the_budget_left(monkeypatch, clock, overslept, timeout):
    """Where nothing is left of it, as a wait took longer than it should, next to nothing."""
    monkeypatch.setattr("time.sleep", lambda seconds: clock.tick(seconds + overslept))
    busy = in_memory.Answer(503, headers={"Retry-After": "24"})
    endpoint = in_memory.TokenEndpoint(busy, busy)
    endpoint.send = mock.Mock(wraps=endpoint.send)
    failure(auth_with(endpoint, timeout=(5, 10)))
    assert [call.kwargs["timeout"] for call in endpoint.send.call_args_list] == [(5, 10), pytest.approx(timeout)]


DRIPS = {"chunks": (Answer(chunked=True), None), "a redirect": (Answer(307, headers={"Location": "/elsewhere"}), 307)}


@pytest.mark.parametrize(("answer", "status"), DRIPS.values(), ids=DRIPS)
def test_a_body_that_drips_ends_with_the_budget(server, answer, status):
    """Each byte comes in time, and yet there is an end."""
    server.play(replace(answer, body=b" " * 1500, fault="drip", within="body", interval=0.01))
    started = time.perf_counter()
    error = failure(auth_at(server, timeout=(0.1, 0.2)))
    assert type(error) is TokenEndpointError
    assert getattr(error.response, "status_code", None) == status
    assert error.retry_after is None
    assert status or "0.6 s" in str(error)
    assert 0.5 < time.perf_counter() - started < 10


# A time that the endpoint named holds off all that need a token

DATE = "Thu, 01 Jan 2026 12:00:40 GMT"  # 40 s after the beginning, by the local clock
HELD = [(503, DATE, 40, 40), (404, "5", 5, 5), (429, "60", 60, 60), (429, "3600", 3600, 60)]


@pytest.mark.parametrize(("status", "wait", "named", "held"), HELD)
def test_until_the_time_that_was_named_the_same_error_is_raised_at_once(clock, status, wait, named, held):
    """That is for a minute at most. `retry_after` counts down, and afterwards the endpoint is asked again."""
    endpoint = in_memory.TokenEndpoint(in_memory.Answer(status, headers={"Retry-After": wait}))
    auth = auth_with(endpoint)
    first = failure(auth)
    for seconds in (1, held - 1.5):
        clock.tick(seconds)
        again = failure(auth)
        assert again is not first
        assert type(again) is TokenEndpointError
        assert again.response.status_code == status
    assert again.retry_after == pytest.approx(named - held + 0.5)
    assert f"Try again in {named - held + 0.5:.0f} s." in str(again)
    assert (first.retry_after, endpoint.count) == (named, 1)
    clock.tick(0.6)
    assert auth.access_token() == "token-2"


FORGOTTEN = {
    "404": in_memory.Answer(404),
    "401 with a time": in_memory.Answer(401, headers={"Retry-After": "40"}),
    "404 with no time to wait": in_memory.Answer(404, headers={"Retry-After": "0"}),
    "200 without a token": in_memory.Answer(200, headers={"Retry-After": "40"}),
    "ReadTimeout": requests.ReadTimeout(),
}


@pytest.mark.parametrize("fault", FORGOTTEN.values(), ids=FORGOTTEN)
def test_no_other_failure_is_remembered(fault):
    """The next request asks again. Only a `TokenEndpointError` has a `retry_after`: to wait mends no credentials."""
    auth = auth_with(in_memory.TokenEndpoint(fault))
    error = failure(auth)
    assert hasattr(error, "retry_after") == isinstance(error, TokenEndpointError)
    assert auth.access_token() == "token-2"


# The limits of an answer

FORMS: list[dict[str, Any]] = [{}, {"chunked": True}, {"version": "HTTP/1.0"}]


@pytest.mark.parametrize("form", FORMS[:2], ids=["length", "chunked"])
def test_a_body_of_64_kib_is_the_largest(server, form):
    """One more byte is too many."""
    padded = Answer(body=OK.body.ljust(65_536), **form)
    server.play(padded, replace(padded, body=padded.body + b" "))
    auth = auth_at(server)
    assert auth.access_token() == JWT
    auth.invalidate()
    error = failure(auth)
    assert type(error) is TokenResponseError
    assert str(error).endswith("but the answer has more than 65536 bytes. No token was obtained.")


KINDS = [(200, TokenResponseError), (302, TokenEndpointError), (400, InvalidClientError)]


@pytest.mark.parametrize(("status", "kind", "form"), [(*kind, form) for kind, form in zip(KINDS, FORMS, strict=True)])
def test_an_endless_body_is_not_read_on(server, status, kind, form):
    """The connection is closed instead, early. Of a redirect with a `Location`, `requests` itself would read all."""
    server.play(Answer(status, headers={"Location": "/elsewhere"}, **ENDLESS, **form))
    with requests.Session() as lent:
        assert type(failure(auth_at(server, session=lent))) is kind
        assert server.until(lambda: server.requests[0].finished and not server.open)
    assert server.requests[0].sent < 100_000_000


PLAIN = [(status, coding) for status in (200, 201, 299) for coding in ("identity", "Identity")]
OTHERS = [(200, coding) for coding in ("gzip", "GZip", "br", "identity, gzip", "x-unknown")]


@pytest.mark.parametrize(("status", "coding"), [*PLAIN, *OTHERS])
def test_any_2xx_answer_may_bring_a_token_but_a_compressed_one(server, status, coding):
    """To compress was ruled out, as it might unpack to more than was read."""
    server.play(replace(OK, status=status, headers={"Content-Encoding": coding}))
    if (status, coding) in PLAIN:
        assert auth_at(server).access_token() == JWT
    else:
        assert type(failure(auth_at(server))) is TokenResponseError


UNREADABLE = {"compressed": {"headers": {"Content-Encoding": "gzip"}}}
UNREADABLE |= {fault: {"fault": fault, "within": "body"} for fault in ("reset", "close", "hang")}


@pytest.mark.parametrize("flaw", UNREADABLE.values(), ids=UNREADABLE)
def test_a_refusal_whose_body_cannot_be_read_is_a_refusal(server, flaw):
    """Its status tells enough."""
    server.play(Answer(401, b'{"message": "Unknown client."}', **flaw))
    error = failure(auth_at(server, timeout=(5, 0.2)))
    assert type(error) is InvalidClientError
    assert (error.response.status_code, error.response.content) == (401, b"")


# What errors say


def said(status: int, message: str = "Not today.") -> Answer:
    """Return an answer in which the endpoint says something."""
    return Answer(status, json.dumps({"code": "7", "message": message}).encode())


def typed(kind: str | None) -> Answer:
    """Return an answer that is no JSON, with this `Content-Type`."""
    return Answer(200, b"Sign in", {"Content-Type": kind})


REFUSED = InvalidClientError
FAILED = TokenEndpointError
UNUSABLE = TokenResponseError
SAID = "The server says 'Not today.'"
KEY = "Check the client id and secret: are they of an API key of {url}?"
BETWEEN = "Or something on the way refused the request: a firewall, or an allow-list of addresses."
STAYS = "A redirect is not followed, since the client secret would go along. Check the token URL."
URL = "Check that the token URL of the environment {url} is right."
LIMIT = "The endpoint limits how often it may be asked."
FAULT = "This is a fault on the side of the server."
AGAIN = "The next request that needs a token asks again."
TYPE = "200 with the content type"
JSON = "'application/json'"
FLAW = "but the answer is not a JSON object"
OVER = "an access_token that has already expired"
PAGE = "A proxy or a login page may have answered in the place of the token endpoint."
LONG = "x/html; " + "y" * 200
PACKED = replace(OK, headers={"Content-Encoding": "br"})
TEXTS: dict[str, Any] = {  # the answer, the error that it becomes, and what that says after "POST ... answered"
    "400": (said(400), REFUSED, f"400. {SAID} {KEY}"),
    "401, a question": (said(401, "Who?"), REFUSED, f"401. The server says 'Who?'. {KEY}"),
    "401, no words": (Answer(401), REFUSED, f"401. {KEY}"),
    "403": (said(403), REFUSED, f"403. {SAID} {KEY} {BETWEEN}"),
    "an echo": (said(400, f"No client {SECRET}."), REFUSED, f"400. The server says 'No client [secret].' {KEY}"),
    "RFC 6749": (Answer(401, b'{"error": "no_client"}'), REFUSED, f"401. The server says 'no_client'. {KEY}"),
    "300": (said(300), FAILED, f"300. {SAID} {STAYS}"),
    "399": (Answer(399), FAILED, f"399. {STAYS}"),
    "404": (said(404), FAILED, f"404. {SAID} {URL}"),
    "no message": (Answer(404, b'{"message": 7, "error": ""}'), FAILED, f"404. {URL}"),
    "429": (Answer(429), FAILED, f"429. {LIMIT} {AGAIN}"),
    "429, a time": (Answer(429, headers={"Retry-After": "9"}), FAILED, f"429. {LIMIT} Try again in 9 s."),
    "499": (Answer(499), FAILED, f"499. {URL}"),
    "500": (said(500), FAILED, f"500. {SAID} {FAULT} {AGAIN}"),
    "200, HTML": (typed("text/HTML"), UNUSABLE, f"{TYPE} 'text/HTML', {FLAW}. {PAGE}"),
    "200, a long type": (typed(LONG), UNUSABLE, f"{TYPE} {LONG[:100]!r}, {FLAW}. {PAGE}"),
    "200, no type": (typed(None), UNUSABLE, f"{TYPE} 'none', {FLAW}."),
    "200, a forged type": (typed(f"\x1b[31m{SECRET}"), UNUSABLE, f"{TYPE} '\\x1b[31m[secret]', {FLAW}."),
    "200, broken": (Answer(200, b'{"access_token": "eyJ'), UNUSABLE, f"{TYPE} {JSON}, {FLAW}."),
    "200, no life": (token_answer("eyJ", 0), UNUSABLE, f"{TYPE} {JSON}, but the answer has {OVER}."),
    "200, packed": (PACKED, UNUSABLE, f"{TYPE} {JSON}, but the answer is compressed, which was ruled out."),
    "200, words": (said(200), UNUSABLE, f"{TYPE} {JSON}, but the answer has no access_token. {SAID}"),
    "200, a token": (
        token_answer("eyJ", 0, error="eyJ"),
        UNUSABLE,
        f"{TYPE} {JSON}, but the answer has {OVER}.",
    ),
}


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_goes_wrong_is_told_in_whole_sentences(server, clock, caplog, text):
    """As a WARNING while a stale token lives, and as an error afterwards: who answered what, and what to do.

    An error about a 2xx answer carries no response, as that may hold a token, and shows nothing of one. A pickle of an
    error, as a worker sends it to its parent, says the same.
    """
    answer, kind, rest = text
    expected = f"POST {server.url}/api/oauth/token answered {rest}".replace("{url}", server.url)
    if kind is UNUSABLE:
        expected += " No token was obtained."
    auth = auth_at(server)
    auth.access_token()
    server.play(answer)
    clock.tick(850)
    caplog.clear()
    assert auth.access_token() == JWT
    [warning] = [record.getMessage() for record in caplog.records if record.name == "requests_mentionme"]
    assert expected in warning
    clock.tick(145)
    error = failure(auth)
    assert (type(error), str(error)) == (kind, expected)
    assert getattr(error.response, "status_code", None) == (None if kind is UNUSABLE else answer.status)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy).get("retry_after")) == (kind, expected, vars(error).get("retry_after"))


@pytest.mark.parametrize(("status", "end"), [(400, "\n"), (401, "\r\n"), (403, "\N{NO-BREAK SPACE}")])
def test_a_refused_secret_that_ends_in_white_space_is_told_as_such(server, status, end):
    """It was probably read from a file. The message does not show it, and says nothing where there is no such end."""
    server.play(said(status))
    hint = " The client secret begins or ends with white space: was it copied by mistake?"
    for secret in (SECRET + end, SECRET):
        message = str(failure(MentionMeAuth("ci_sample", secret, environment=server.url)))
        assert message.endswith(hint) == (secret != SECRET)
        assert SECRET not in message
    assert server.requests[0].json()["client_secret"] == SECRET + end


def test_the_response_of_an_error_is_like_any_other(server):
    """It shows its status, reason, URL, headers, text in its encoding, and how long it took."""
    server.play(Answer(404, "{'wo': 'Straße'}".encode("latin-1"), {"Content-Type": "text/plain; charset=latin-1"}))
    response = failure(auth_at(server)).response
    assert (response.status_code, response.reason, response.ok) == (404, "Not Found", False)
    assert response.url == f"{server.url}/api/oauth/token"
    assert response.headers["content-type"] == "text/plain; charset=latin-1"
    assert b"".join(response.iter_content(5)) == response.content
    assert (response.encoding, response.text) == ("latin-1", "{'wo': 'Straße'}")
    assert response.elapsed.total_seconds() > 0
