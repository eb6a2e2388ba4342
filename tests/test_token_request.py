"""The token request: what is sent and by which way, its tries and its budget, what it accepts, and what its errors say.

What concerns bytes and connections runs against a server on a loopback port. What concerns statuses, headers and times
runs against an endpoint in memory. `proofs/test_fault_matrix.py` shows each fault at each moment of a token's life.
"""

import gc
import json
import pickle
import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import in_memory
import pytest
import requests
import responses
import trustme
from freezegun.api import FrozenDateTimeFactory
from in_memory import auth_with
from loopback import Answer, Loopback, Request, make_jwt, token_answer
from requests.utils import select_proxy

import requests_mentionme
from requests_mentionme import (
    InvalidClientError,
    MentionMeAuth,
    MentionMeAuthError,
    TokenEndpointError,
    TokenResponseError,
)

SECRET = "cs_never-to-be-seen"
JWT = make_jwt()
OK = token_answer(JWT, 1000)
ENDLESS: dict[str, Any] = {"body": b"x" * 65_536, "times": 3200}  # 200 MB
OWN_OR_LENT = pytest.mark.parametrize("lent", [None, requests.Session()], ids=["own session", "lent session"])


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


class Recorder(in_memory.TokenEndpoint):
    """An endpoint in memory that keeps the options of each request."""

    def __init__(self, *script: object) -> None:
        super().__init__(*script)
        self.options: list[dict[str, Any]] = []

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Keep the options."""
        self.options.append(kwargs)
        return super().send(request, *args, **kwargs)


# What is sent


@OWN_OR_LENT
def test_a_token_request_holds_exactly_what_is_documented(
    server: Loopback, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lent: requests.Session | None
) -> None:
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


def test_the_life_of_a_token_counts_from_the_try_that_brought_it(
    server: Loopback, waits: list[float], clock: FrozenDateTimeFactory
) -> None:
    """The tries and waits before it are not part of it; the time that the answer takes is."""

    def slow(_: Request) -> Answer:
        clock.tick(5)
        return token_answer(make_jwt(), 1000)

    server.play(Answer(503, headers={"Retry-After": "7"}), slow)
    auth = auth_at(server)
    auth.access_token()

    clock.tick(794)
    auth.access_token()
    assert (len(server.requests), waits) == (2, [7])
    clock.tick(2)
    auth.access_token()
    assert len(server.requests) == 3


# Redirects


class Eager(requests.Session):
    """A session that finds a target to follow in each redirect."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return the URL that was asked."""
        return resp.url if resp.is_redirect or resp.status_code == 307 else None


OTHER = "{other}/api/oauth/token"
REDIRECTS = {str(status): (status, OTHER) for status in (301, 302, 303, 307, 308)} | {
    "to itself": (307, "/api/oauth/token"),
    "without a scheme": (307, "//127.0.0.1:{port}/"),
    "not to be parsed": (307, "http://["),
    "to no port": (307, "http://127.0.0.1:port/"),
}


@pytest.mark.parametrize("lent", [None, requests.Session(), Eager()], ids=["own session", "lent session", "eager one"])
@pytest.mark.parametrize(("status", "location"), REDIRECTS.values(), ids=REDIRECTS)
def test_a_redirect_is_not_followed(
    server: Loopback, status: int, location: str, lent: requests.Session | None
) -> None:
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
VARIABLES = [{"HTTP_PROXY": PROXY}, {"http_proxy": PROXY}, {"ALL_PROXY": PROXY}, {"session": PROXY}]
PROXIES: list[tuple[str, dict[str, str], str | None]] = [
    *[(url, variables, None) for url in LOCAL for variables in VARIABLES],
    (KIOSK, {"HTTPS_PROXY": PROXY}, PROXY),
    (KIOSK, {"ALL_PROXY": PROXY}, PROXY),
    (KIOSK, {"session": PROXY}, PROXY),
    (KIOSK, {"HTTP_PROXY": PROXY}, None),
    (KIOSK, {"HTTPS_PROXY": PROXY, "NO_PROXY": "kiosk.example"}, None),
]


@pytest.mark.parametrize(
    ("url", "variables", "expected"), PROXIES, ids=[f"{url}, {'+'.join(by)}" for url, by, _ in PROXIES]
)
def test_a_proxy_is_used_for_any_token_url_but_one_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, url: str, variables: dict[str, str], expected: str | None
) -> None:
    """It is the environment's or the session's. Plain `http` is allowed here, and a proxy would read the secret."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with requests.Session() as session, responses.RequestsMock() as mock:
        if "session" in variables:
            session.proxies = {"http": PROXY, "https": PROXY, "all": PROXY}
        mock.post(f"{url}/api/oauth/token", body=OK.body)
        for lent in (session,) if "session" in variables else (None, session):
            MentionMeAuth("ci_sample", SECRET, environment=url, session=lent).access_token()

            request: Any = mock.calls[-1].request
            assert select_proxy(request.url, request.req_kwargs["proxies"]) == expected


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "UNUSED"])
@pytest.mark.parametrize("name", ["localhost", "mention-me.com"])
def test_tls_is_verified_with_the_bundle_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, name: str
) -> None:
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
            assert type(failure(auth_at(server))) is requests.exceptions.SSLError
            assert (server.connections, server.requests) == (1, [])


# A session that is lent


def not_to_be_used(request: requests.PreparedRequest) -> NoReturn:
    """Be an auth that must not be asked."""
    pytest.fail(f"the session's auth was used for {request.url}")


def test_a_lent_session_is_used_with_all_its_settings_but_its_auth() -> None:
    """Adapters, CA, headers and hooks are those of the session; the library's own headers come first."""
    seen: list[int] = []
    endpoint = Recorder()
    lent = in_memory.session_with(endpoint)
    lent.verify = "a-bundle.pem"
    lent.cert = "a-certificate.pem"
    lent.auth = not_to_be_used
    lent.headers.update({"X-Team": "growth", "User-Agent": "caller/1", "Accept-Encoding": "gzip"})
    lent.hooks["response"].append(lambda response, **_: seen.append(response.status_code))

    auth_with(endpoint, session=lent, timeout=(3, 4)).access_token()

    [options] = endpoint.options
    assert (options["verify"], options["cert"], options["stream"]) == ("a-bundle.pem", "a-certificate.pem", True)
    assert options["timeout"] == (pytest.approx(3), pytest.approx(4))
    headers = endpoint.requests[0].headers
    assert headers["X-Team"] == "growth"
    assert headers["User-Agent"] == f"requests-mentionme/{requests_mentionme.__version__}"
    assert headers["Accept-Encoding"] == "identity"
    assert seen == [200]


def test_a_session_may_be_lent_to_its_own_auth(server: Loopback) -> None:
    """One session for the API and for its tokens is no recursion."""
    server.play(OK, Answer(body=b"{}"))
    with requests.Session() as session:
        session.auth = auth_at(server, session=session)
        assert session.get(f"{server.url}/customers", timeout=5).ok

    assert [request.headers.get("authorization") for request in server.requests] == [None, f"Bearer {JWT}"]


def raise_nothing(response: requests.Response, **_: Any) -> None:
    """Be a hook that many sessions have, in its harmless form."""
    assert response.status_code


class ClosesItself(requests.Session):
    """A session that its finalizer closes."""

    def __del__(self) -> None:
        self.close()


class Tenanted(requests.Session):
    """A session that overrides how it sends, with what it keeps in slots."""

    __slots__ = ("__mark", "tenant")

    def __init__(self) -> None:
        super().__init__()
        self.tenant = "growth"
        self.__mark = "mark"

    def request(self, method: Any, url: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        """Send what the first slot holds along."""
        kwargs["headers"] = {**kwargs["headers"], "X-Tenant": self.tenant}
        return super().request(method, url, **kwargs)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send what the second slot holds along."""
        request.headers["X-Mark"] = self.__mark
        return super().send(request, **kwargs)


class EmptySlots(Tenanted):
    """A session with a slot that nothing was ever put into, below another one with slots."""

    __slots__ = ("region",)


class LacksAttributes(requests.Session):
    """A session without an attribute that sending does not need, as one from an older pickle."""

    def __init__(self) -> None:
        super().__init__()
        del self.max_redirects


@pytest.mark.parametrize("kind", [requests.Session, ClosesItself, Tenanted, EmptySlots, LacksAttributes])
def test_a_lent_session_of_any_class_is_neither_changed_nor_closed(
    server: Loopback, waits: list[float], kind: type[requests.Session]
) -> None:
    """Its connection, attributes, slots, hooks and cookies stay, whatever comes of a renewal; its cookies go out."""
    lent = kind()
    lent.cookies.set("mine", "1")
    lent.auth = ("user", "password")
    lent.hooks["response"].append(raise_nothing)
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


@pytest.mark.parametrize(
    "answer",
    [OK, Answer(401), Answer(302), Answer(200, b"no JSON"), Answer(**ENDLESS)],
    ids=["a token", "refused", "a redirect", "not JSON", "endless"],
)
def test_each_renewal_closes_a_connection_of_its_own(server: Loopback, answer: Answer) -> None:
    """No session is lent, so none is left open, stale or shared with a forked process."""
    server.play(answer)
    auth = auth_at(server)
    for number in (1, 2):
        auth.invalidate()
        if answer is OK:
            auth.access_token()
        else:
            failure(auth)
        assert server.connections == number
        assert server.until(lambda: not server.open)


def test_an_interrupted_renewal_closes_its_connection(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C leaves nothing behind either."""

    def interrupt(_: float) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    server.play(Answer(503))

    with pytest.raises(KeyboardInterrupt):
        auth_at(server).access_token()

    assert server.until(lambda: server.connections == 1 and not server.open)


# Tries

PASSING: list[Any] = [in_memory.Answer(status) for status in (429, 500, 502, 503, 504, 599)]
PASSING += [requests.ConnectionError(), requests.ConnectTimeout(), requests.exceptions.ProxyError()]


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: getattr(fault, "status", type(fault).__name__))
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_fault_that_may_pass_is_tried_again_up_to_three_tries_in_all(
    waits: list[float], fault: Any, times: int
) -> None:
    """The last try tells what went wrong, and no wait follows it."""
    endpoint = in_memory.TokenEndpoint(*[fault] * times)
    auth = auth_with(endpoint)

    if times < 3:
        assert auth.access_token() == f"token-{times + 1}"
    else:
        error = failure(auth)
        assert type(error) is (TokenEndpointError if isinstance(fault, in_memory.Answer) else type(fault))
        assert getattr(error.response, "status_code", None) == getattr(fault, "status", None)
    assert waits == [0.5, 1.0][:times]
    assert endpoint.count == min(times + 1, 3)


FINAL: list[tuple[Any, type[requests.RequestException]]] = [
    *[(in_memory.Answer(status), InvalidClientError) for status in (400, 401, 403)],
    *[(in_memory.Answer(status), TokenEndpointError) for status in (300, 302, 304, 404, 405, 410, 415, 422, 451)],
    (in_memory.Answer(200), TokenResponseError),
    *[(kind(), kind) for kind in (requests.ReadTimeout, requests.exceptions.SSLError, requests.exceptions.RetryError)],
]


@pytest.mark.parametrize(("fault", "kind"), FINAL, ids=[getattr(fault, "status", repr(fault)) for fault, _ in FINAL])
def test_a_fault_that_stays_the_same_is_not_tried_again(
    waits: list[float], fault: Any, kind: type[requests.RequestException]
) -> None:
    """A refusal or a certificate is final; after a read timeout the endpoint may be at work; an adapter has retried."""
    endpoint = in_memory.TokenEndpoint(fault)

    error = failure(auth_with(endpoint))

    assert type(error) is kind
    assert (endpoint.count, waits) == (1, [])
    if kind in (InvalidClientError, TokenEndpointError):
        assert error.response.status_code == fault.status
        assert error.request is not None


# Waits, and the budget


def test_waits_grow_and_are_jittered(monkeypatch: pytest.MonkeyPatch) -> None:
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


NAMED = {
    "seconds": ({"Retry-After": "3"}, 3),
    "a date": ({"Retry-After": "Tue, 24 Nov 2026 04:30:08 GMT", "Date": "Tue, 24 Nov 2026 04:30:00 GMT"}, 8),
    "the window's end": ({"X-RateLimit-Reset": "4"}, 4),
    "both": ({"Retry-After": "3", "X-RateLimit-Reset": "4"}, 3),
    "less than the backoff": ({"Retry-After": "0.1"}, 0.1),
    "a window that is not spent": ({"X-RateLimit-Remaining": "7", "X-RateLimit-Reset": "4"}, None),
    "no number": ({"Retry-After": "soon"}, None),
}


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("headers", "named"), NAMED.values(), ids=NAMED)
def test_the_time_that_the_endpoint_names_is_waited_for(
    waits: list[float], status: int, headers: dict[str, str], named: float | None
) -> None:
    """The wait is at least the time named, and at least the backoff; the last error tells it."""
    endpoint = in_memory.TokenEndpoint(*[in_memory.Answer(status, headers=headers)] * 3)

    error = failure(auth_with(endpoint))

    assert waits == [max(named or 0, 0.5), max(named or 0, 1.0)]
    assert error.retry_after == named
    assert (f"Try again in {named:.0f} s." in str(error)) if named is not None else ("Try again in" not in str(error))


FITS = {
    "just fits": ((5, 10), "29.9", [29.9], None),
    "the whole budget": ((5, 10), "30", [], 30),
    "fits once, and not twice": ((5, 10), "20", [20], 20),
    "a backoff that does not fit": ((0.1, 0.15), "0", [], 0),
}


@pytest.mark.parametrize(("timeout", "named", "waited", "retry_after"), FITS.values(), ids=FITS)
def test_a_wait_is_not_begun_if_it_does_not_fit_the_budget(
    waits: list[float], timeout: tuple[float, float], named: str, waited: list[float], retry_after: float | None
) -> None:
    """The budget of all tries is twice (connect + read); beyond it the error comes at once and tells the time."""
    busy = in_memory.Answer(429, headers={"Retry-After": named})
    endpoint = in_memory.TokenEndpoint(*[busy] * (1 if retry_after is None else 3))
    auth = auth_with(endpoint, timeout=timeout)

    if retry_after is None:
        assert auth.access_token() == "token-2"
    else:
        assert failure(auth).retry_after == retry_after
    assert (endpoint.count, waits) == (len(waited) + 1, waited)


@pytest.mark.parametrize(
    ("overslept", "timeout"), [(0, (5, 6)), (3, (3, 3)), (5.999, (0.001, 0.001)), (50, (0.001, 0.001))]
)
def test_a_try_has_no_longer_timeouts_than_the_budget_left(
    monkeypatch: pytest.MonkeyPatch, clock: FrozenDateTimeFactory, overslept: float, timeout: tuple[float, float]
) -> None:
    """Where nothing is left of it, as a wait took longer than it should, next to nothing."""
    monkeypatch.setattr("time.sleep", lambda seconds: clock.tick(seconds + overslept))
    busy = in_memory.Answer(503, headers={"Retry-After": "24"})
    endpoint = Recorder(busy, busy)

    failure(auth_with(endpoint, timeout=(5, 10)))

    assert [options["timeout"] for options in endpoint.options] == [(5, 10), pytest.approx(timeout)]


DRIPS = {"a length": (Answer(), None), "chunks": (Answer(chunked=True), None)}
DRIPS |= {"a redirect": (Answer(307, headers={"Location": "/elsewhere"}), 307)}


@pytest.mark.parametrize(("answer", "status"), DRIPS.values(), ids=DRIPS)
def test_a_body_that_drips_ends_with_the_budget(server: Loopback, answer: Answer, status: int | None) -> None:
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
HELD = [(429, "40", 40, 40), (503, DATE, 40, 40), (404, "5", 5, 5), (429, "60", 60, 60), (429, "3600", 3600, 60)]


@pytest.mark.parametrize(("status", "wait", "named", "held"), HELD)
def test_until_the_time_that_was_named_the_same_error_is_raised_at_once(
    clock: FrozenDateTimeFactory, status: int, wait: str, named: int, held: int
) -> None:
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
def test_no_other_failure_is_remembered(fault: Any) -> None:
    """The next request asks again. Only a `TokenEndpointError` has a `retry_after`: to wait mends no credentials."""
    auth = auth_with(in_memory.TokenEndpoint(fault))

    error = failure(auth)

    assert hasattr(error, "retry_after") == isinstance(error, TokenEndpointError)
    assert auth.access_token() == "token-2"


# The limits of an answer


FORMS = pytest.mark.parametrize(
    "form", [{}, {"chunked": True}, {"version": "HTTP/1.0"}], ids=["length", "chunked", "HTTP/1.0"]
)
KINDS = {200: TokenResponseError, 302: TokenEndpointError, 400: InvalidClientError, 404: TokenEndpointError}


@FORMS
def test_a_body_of_64_kib_is_the_largest(server: Loopback, form: dict[str, Any]) -> None:
    """One more byte is too many."""
    padded = Answer(body=OK.body.ljust(65_536), **form)
    server.play(padded, replace(padded, body=padded.body + b" "))
    auth = auth_at(server)

    assert auth.access_token() == JWT
    auth.invalidate()
    error = failure(auth)
    assert type(error) is TokenResponseError
    assert re.search("answered 200.*application/json.*(65536 bytes|64 KiB)", str(error))
    assert_readable(str(error), server)


@FORMS
@pytest.mark.parametrize("status", KINDS)
def test_an_endless_body_is_not_read_on(server: Loopback, status: int, form: dict[str, Any]) -> None:
    """The connection is closed instead, early. Of a redirect with a `Location`, `requests` itself would read all."""
    server.play(Answer(status, headers={"Location": "/elsewhere"}, **ENDLESS, **form))

    with requests.Session() as lent:
        assert type(failure(auth_at(server, session=lent))) is KINDS[status]
        assert server.until(lambda: server.requests[0].finished and not server.open)
    assert server.requests[0].sent < 100_000_000


CODINGS = ["gzip", "GZip", "deflate", "br", "zstd", "identity, gzip", "x-unknown", "identity", "Identity"]


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("status", [200, 201, 203, 299])
def test_any_2xx_answer_may_bring_a_token_but_a_compressed_one(server: Loopback, status: int, coding: str) -> None:
    """To compress was ruled out, as it might unpack to more than was read."""
    server.play(replace(OK, status=status, headers={"Content-Encoding": coding}))

    if coding.lower() == "identity":
        assert auth_at(server).access_token() == JWT
    else:
        assert type(failure(auth_at(server))) is TokenResponseError


REFUSAL = Answer(401, b'{"message": "Unknown client."}')
UNREADABLE = [
    replace(REFUSAL, headers={"Content-Encoding": "gzip"}),
    *[replace(REFUSAL, fault=fault, within="body") for fault in ("reset", "close", "hang")],
]


@pytest.mark.parametrize("answer", UNREADABLE, ids=["compressed", "reset", "close", "hang"])
def test_a_refusal_whose_body_cannot_be_read_is_a_refusal(server: Loopback, answer: Answer) -> None:
    """Its status tells enough."""
    server.play(answer)

    error = failure(auth_at(server, timeout=(5, 0.2)))

    assert type(error) is InvalidClientError
    assert error.response.status_code == 401
    assert answer.fault is not None or error.response.content == b""


# What errors say


def assert_readable(message: str, server: Loopback) -> None:
    """Assert that someone who has not seen the code can read a message: whole sentences, and where it happened."""
    assert re.match("[A-Z]", message), message
    assert re.search(r"[.?!]'?\Z", message), message
    assert not re.search(r"\.['\"]?\s?\.", message), message  # two full stops in a row
    assert not re.search(r"\s\s|\s[.,]|[,:;]\.|\bNone\b", message), message
    assert message.isprintable()
    assert f"{server.url}/api/oauth/token" in message
    assert SECRET not in message


def said(status: int, message: str = "Not today.", **headers: str) -> Answer:
    """Return an answer in which the endpoint says something."""
    body = json.dumps({"code": "7", "message": message}).encode()
    return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


REFUSED = InvalidClientError
FAILED = TokenEndpointError
UNUSABLE = TokenResponseError
HTML = Answer(200, b"<html>Sign in to this network</html>", {"Content-Type": "text/html; charset=utf-8"})
NO_TYPE = Answer(200, b"hi", {"Content-Type": None})
XHTML = replace(HTML, headers={"Content-Type": "application/xhtml+xml"})
FORGED = replace(HTML, headers={"Content-Type": f"text/html; \x1b[31m{SECRET}"})
KEY = ("client id and secret", r"API key of http://127\.0\.0\.1:\d+\b")
BETWEEN = ("firewall", "allow-list")
STAYS = ("not followed", "client secret would go along")
CHECK = ("(?i)check|base URL|environment",)
LATER = ("(?i)try again|asks again|later",)
SAID = r"'Not today\.?'"  # one full stop is enough
RFC_6749 = b'{"error": "invalid_client", "error_description": "Unknown client"}'
JSON = ("answered 200", "application/json")
LOGIN = ("answered 200", "html", "proxy", "login page")
# The answer, the error that it becomes, and patterns of what that must say.
Text = tuple[Answer, type[MentionMeAuthError], tuple[str, ...]]
TEXTS: dict[str, Text] = {
    "400": (said(400), REFUSED, ("answered 400", SAID, *KEY)),
    "401": (said(401), REFUSED, ("answered 401", SAID, *KEY)),
    "401, no full stop": (said(401, "wrong secret"), REFUSED, ("'wrong secret'", *KEY)),
    "401, a question": (said(401, "Who?"), REFUSED, (r"'Who\?'", *KEY)),
    "401, no words": (Answer(401), REFUSED, ("answered 401", *KEY)),
    "403": (said(403), REFUSED, ("answered 403", SAID, *KEY, *BETWEEN)),
    "403, HTML": (replace(HTML, status=403), REFUSED, ("answered 403", *KEY, *BETWEEN)),
    "an echo": (said(400, f"No client {SECRET}."), REFUSED, (r"'No client \[secret\]\.?'", *KEY)),
    "302": (said(302, Location="/elsewhere"), FAILED, ("answered 302", SAID, *STAYS)),
    "304": (Answer(304), FAILED, ("answered 304", *STAYS)),
    "404": (said(404), FAILED, ("answered 404", SAID, *CHECK)),
    "404, HTML": (replace(HTML, status=404), FAILED, ("answered 404", *CHECK)),
    "429": (Answer(429), FAILED, ("answered 429", *LATER)),
    "429, a time": (Answer(429, headers={"Retry-After": "9"}), FAILED, (r"\A(?!.*asks again).*Try again in 9 s\.",)),
    "500": (said(500), FAILED, ("answered 500", SAID, *LATER)),
    "503, a time": (said(503, Retry_After="3600"), FAILED, (r"\A(?!.*asks again).*Try again in 3600 s\.",)),
    "RFC 6749": (Answer(401, RFC_6749), REFUSED, ("'invalid_client: Unknown client'",)),
    "RFC 6749, the short form": (Answer(401, b'{"error": "invalid_client"}'), REFUSED, ("'invalid_client'",)),
    "long": (said(404, "x" * 500), FAILED, (f"'{'x' * 200}'",)),
    "control characters": (said(404, "a\r\nb\x1b[31m"), FAILED, (r"'a\\r\\nb\\x1b\[31m'",)),
    "no message": (Answer(404, b'{"message": 7, "error": ""}'), FAILED, (r"answered 404\.(?!.*\b7\b)",)),
    "200, HTML": (HTML, UNUSABLE, LOGIN),
    "200, XHTML": (XHTML, UNUSABLE, LOGIN),
    "200, no type": (NO_TYPE, UNUSABLE, ("200",)),
    "200, a forged type": (FORGED, UNUSABLE, ("200",)),
    "200, words": (said(200, f"No {SECRET}."), UNUSABLE, (*JSON, r"'No \[secret\]\.?'")),
    "200, compressed": (replace(OK, headers={"Content-Encoding": "br"}), UNUSABLE, (*JSON, "compressed")),
    "204": (Answer(204), UNUSABLE, ("answered 204",)),
    "empty": (Answer(200), UNUSABLE, JSON),
    "broken JSON": (Answer(200, b'{"access_token": "eyJ'), UNUSABLE, JSON),
    "not UTF-8": (Answer(200, b'{"access_token": "eyJ\xff"}'), UNUSABLE, JSON),
    "no token": (Answer(200, b'{"token_type": "bearer"}'), UNUSABLE, JSON),
    "a token with a line break": (token_answer("eyJ\r\nX-Injected: 1"), UNUSABLE, JSON),
    "another type of token": (token_answer("eyJ", token_type="mac"), UNUSABLE, JSON),
    "another type, words": (token_answer("eyJ", token_type="mac", message="Have eyJ."), UNUSABLE, JSON),
    "no life": (token_answer("eyJ", 0), UNUSABLE, JSON),
    "no life, words": (token_answer("eyJ", 0, error="eyJ is over"), UNUSABLE, JSON),
}


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_goes_wrong_is_told_in_whole_sentences(
    server: Loopback, clock: FrozenDateTimeFactory, caplog: pytest.LogCaptureFixture, text: Text
) -> None:
    """As a WARNING while a stale token lives, and as an error afterwards: who answered what, and what to do.

    An error about a 2xx answer carries no response, as that may hold a token, and shows nothing of one. A pickle of an
    error, as a worker sends it to its parent, says the same.
    """
    answer, kind, says = text
    auth = auth_at(server)
    auth.access_token()
    server.play(answer)

    clock.tick(850)
    caplog.clear()
    assert auth.access_token() == JWT
    [warning] = [record.getMessage() for record in caplog.records if record.name == "requests_mentionme"]
    clock.tick(145)
    error = failure(auth)

    assert type(error) is kind
    for message in (warning, str(error)):
        assert_readable(message, server)
        for pattern in says:
            assert re.search(pattern, message), message
        assert "eyJ" not in message
    assert all(hint in str(error) for hint in BETWEEN) == (answer.status == 403)
    assert getattr(error.response, "status_code", None) == (None if kind is UNUSABLE else answer.status)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy).get("retry_after")) == (kind, str(error), vars(error).get("retry_after"))


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize("end", ["\n", " ", "\r\n", "\t", "\N{NO-BREAK SPACE}"], ids=ascii)
def test_a_refused_secret_that_ends_in_white_space_is_told_as_such(server: Loopback, end: str, status: int) -> None:
    """It was probably read from a file. The message does not show it, and says nothing where there is no such end."""
    server.play(said(status))

    for secret, told in ((SECRET + end, True), (SECRET, False)):
        message = str(failure(MentionMeAuth("ci_sample", secret, environment=server.url)))
        assert_readable(message, server)
        assert bool(re.search("(?i)white ?space", message)) is told
    assert server.requests[0].json()["client_secret"] == SECRET + end


def test_the_response_of_an_error_is_like_any_other(server: Loopback) -> None:
    """It shows its status, reason, URL, headers, text in its encoding, and how long it took."""
    server.play(Answer(404, "{'wo': 'Straße'}".encode("latin-1"), {"Content-Type": "text/plain; charset=latin-1"}))

    response = failure(auth_at(server)).response

    assert (response.status_code, response.reason, response.ok) == (404, "Not Found", False)
    assert response.url == f"{server.url}/api/oauth/token"
    assert response.headers["content-type"] == "text/plain; charset=latin-1"
    assert b"".join(response.iter_content(5)) == response.content
    assert (response.encoding, response.text) == ("latin-1", "{'wo': 'Straße'}")
    assert response.elapsed.total_seconds() > 0
    with pytest.raises(requests.HTTPError, match="404 Client Error: Not Found for url: http"):
        response.raise_for_status()


ARGUMENTS = [("", "s", ValueError), (None, "s", TypeError), ("i", "", ValueError), ("i", b"cs_bytes", TypeError)]


@pytest.mark.parametrize(("client_id", "client_secret", "kind"), ARGUMENTS)
def test_credentials_are_text_that_is_not_empty(client_id: Any, client_secret: Any, kind: type[Exception]) -> None:
    """The error names the argument and does not show it."""
    named = "client_secret" if client_id else "client_id"
    with pytest.raises(kind, match=f"^{named} must be a non-empty string") as caught:
        MentionMeAuth(client_id, client_secret)

    assert "cs_bytes" not in str(caught.value)
