"""The token endpoint over real sockets: what is sent to it, its tries, budget and limits, and what errors carry."""

import io
import json
import pickle
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

import pytest
import requests
import trustme
import urllib3
from freezegun import freeze_time
from freezegun.api import FrozenDateTimeFactory
from loopback import Answer, Loopback, Request, make_jwt, token_answer
from requests.adapters import HTTPAdapter

from requests_mentionme import (
    Environment,
    InvalidClientError,
    MentionMeAuth,
    MentionMeAuthError,
    TokenEndpointError,
    TokenResponseError,
)
from requests_mentionme._endpoint import ClientCredentials, TokenEndpoint
from requests_mentionme._token import Token
from requests_mentionme._version import __version__

SECRET = "cs_never-to-be-seen"
CLIENT = ClientCredentials("ci_sample", SECRET)
JWT = make_jwt()
OK = token_answer(JWT)
RESET = Answer(fault="reset")
ENDLESS = b"x" * 65_536, 3200  # 200 MB: a body, and how often


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A token endpoint that grants a token."""
    with Loopback(OK) as running:
        yield running


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between tries, which take no time and are as long as they can be."""
    waited: list[float] = []
    monkeypatch.setattr("requests_mentionme._endpoint.time.sleep", waited.append)
    monkeypatch.setattr("requests_mentionme._endpoint.random.uniform", lambda _, longest: longest)
    return waited


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """A certificate authority of the tests' own."""
    return trustme.CA()


@pytest.fixture
def bundle(ca: trustme.CA, tmp_path: Path) -> str:
    """The path of the file that makes it trusted."""
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return str(path)


def tls(ca: trustme.CA, *names: str, **options: Any) -> ssl.SSLContext:
    """Return the context of a server with a certificate for *names*, by default the one it has."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*(names or ("localhost",)), **options).configure_cert(context)
    return context


def ask(
    server: Loopback, *, session: requests.Session | None = None, timeout: tuple[float, float] = (5, 10), tries: int = 3
) -> Token:
    """Ask a server for a token, as a renewal does."""
    return TokenEndpoint(Environment.at(server.url), session, timeout, 300).request_token(CLIENT, tries)


def failure(server: Loopback, **options: Any) -> Any:
    """Return the error that asking a server for a token ends in."""
    with pytest.raises(requests.RequestException) as caught:
        ask(server, **options)
    return caught.value


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and what it came from."""
    seen: list[BaseException | None] = [None]
    queue: list[BaseException | None] = [error]
    while queue:
        each = queue.pop()
        if each is None or each in seen:
            continue
        seen.append(each)
        yield each
        queue += [each.__cause__, each.__context__]


def texts_of(error: BaseException) -> str:
    """Return all that a log, a traceback, a debugger or a pickle may show of an error and what it came from."""
    shown: list[object] = []
    for each in chain_of(error):
        shown += [str(each), repr(each), repr(each.args), repr(vars(each))]
        requested = [getattr(each, "request", None)]
        response = getattr(each, "response", None)
        if isinstance(response, requests.Response):
            shown += [response.text, response.content.decode("latin-1"), repr(response.content), dict(response.headers)]
            shown += [*response.headers.values(), response.reason, repr(response.cookies)]
            shown += [vars(response.raw), dict(response.raw.headers)] if response.raw else []
            requested += [response.request, *(earlier.request for earlier in response.history)]
        shown += [vars(request) for request in requested if request is not None]
        shown.append(pickle.dumps(each).decode("latin-1"))
    return "\n".join(text if isinstance(text, str) else repr(text) for text in shown)


# What is sent


def test_a_token_request_holds_exactly_what_is_documented(server: Loopback) -> None:
    """It is a POST of three JSON fields, with the headers that it needs and no other."""
    token = ask(server)

    [request] = server.requests
    assert (request.method, request.target) == ("POST", "/api/oauth/token")
    assert request.json() == {"client_id": "ci_sample", "client_secret": SECRET, "grant_type": "client_credentials"}
    assert request.headers == {
        "host": f"127.0.0.1:{server.port}",
        "user-agent": f"requests-mentionme/{__version__}",
        "accept": "application/json",
        "accept-encoding": "identity",
        "connection": "keep-alive",
        "content-type": "application/json",
        "content-length": str(len(request.body)),
    }
    assert token.value == JWT


def test_a_netrc_file_that_names_the_host_adds_nothing(
    server: Loopback, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Credentials of another kind stay out of the token request, with a lent session too."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login netrc-user password netrc-password\n", encoding="ascii")
    monkeypatch.setenv("NETRC", str(netrc))

    with requests.Session() as lent:
        lent.post(server.url)
        ask(server)
        ask(server, session=lent)

    assert ["authorization" in request.headers for request in server.requests] == [True, False, False]


def test_the_date_of_the_answer_counts(server: Loopback) -> None:
    """It tells how old the token was when it was sent."""
    jwt = make_jwt(exp=datetime(2026, 11, 24, 5, 30, tzinfo=timezone.utc).timestamp())
    server.play(replace(token_answer(jwt, None), headers={"Date": "Tue, 24 Nov 2026 04:40:00 GMT"}))

    assert ask(server).lifetime == 50 * 60


def test_the_life_of_a_token_counts_from_the_try_that_brought_it(
    server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tries and waits before it are not part of it; the time that the answer takes is."""
    with freeze_time("2026-11-24 04:30:00") as clock:
        assert isinstance(clock, FrozenDateTimeFactory)
        monkeypatch.setattr("requests_mentionme._endpoint.time.sleep", clock.tick)

        def slow(_: Request) -> Answer:
            clock.tick(5)
            return OK

        server.play(Answer(503, headers={"Retry-After": "7"}), slow)
        begun = time.time()

        assert (ask(server).obtained_at, time.time()) == (begun + 7, begun + 12)


# Redirects

LOCATIONS = {
    "to itself": "/api/oauth/token",
    "to another host": "{other}/api/oauth/token",
    "without a scheme": "//127.0.0.1:{port}/",
    "not to be parsed": "http://[",
    "to no port": "http://127.0.0.1:port/",
    "not UTF-8": "/\xff\xfe",
    "empty": "",
}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", LOCATIONS.values(), ids=LOCATIONS)
@pytest.mark.parametrize("lent", [False, True], ids=["own session", "lent session"])
def test_a_redirect_is_not_followed(server: Loopback, status: int, location: str, *, lent: bool) -> None:
    """It is an error that says so, after one request; the other host sees nothing."""
    with Loopback(OK) as other, requests.Session() as session:
        where = location.format(other=other.url, port=other.port)
        server.play(Answer(status, b"moved", {"Location": where}))

        error = failure(server, session=session if lent else None)

        assert type(error) is TokenEndpointError
        assert f"answered {status}" in str(error)
        assert "not followed" in str(error)
        assert error.response.status_code == status
        assert error.response.text == "moved"
        assert len(server.requests) == 1
        assert other.connections == 0


def test_a_lent_session_with_an_idea_of_its_own_of_a_redirect_does_not_follow_it(server: Loopback) -> None:
    """Whatever it takes for the target, it is told not to follow."""
    with Loopback(OK) as other:

        class Eager(requests.Session):
            def get_redirect_target(self, resp: requests.Response) -> str | None:
                return f"{other.url}/" if resp.status_code == 307 else None

        server.play(Answer(307))
        with Eager() as lent:
            assert type(failure(server, session=lent)) is TokenEndpointError

        assert (len(server.requests), other.connections) == (1, 0)


@pytest.mark.parametrize("status", [302, 307])
@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
def test_the_body_of_a_redirect_is_read_within_limits(server: Loopback, status: int, *, chunked: bool) -> None:
    """Where there is a `Location`, `requests` itself would read all of it."""
    body, times = ENDLESS
    server.play(Answer(status, body, {"Location": "/elsewhere"}, times=times, chunked=chunked))

    assert type(failure(server)) is TokenEndpointError
    assert server.until(lambda: server.requests[0].finished)
    assert server.requests[0].sent < 100_000_000


def test_a_redirect_whose_body_drips_ends_with_the_budget(server: Loopback) -> None:
    """Its status has told enough by then."""
    drip = Answer(307, b"x" * 1500, {"Location": "/elsewhere"}, fault="drip", within="body", interval=0.01)
    server.play(drip)

    started = time.perf_counter()
    error = failure(server, timeout=(0.2, 0.2))

    assert type(error) is TokenEndpointError
    assert error.response.status_code == 307
    assert time.perf_counter() - started < 10


# The environment's proxies and certificate authorities


@pytest.mark.parametrize("lent", [False, True], ids=["own session", "lent session"])
def test_the_proxy_of_the_environment_is_used(server: Loopback, monkeypatch: pytest.MonkeyPatch, *, lent: bool) -> None:
    """The request goes to it, for the token URL; not where `no_proxy` excepts the host."""
    with Loopback(OK) as proxy, requests.Session() as session:
        monkeypatch.setenv("http_proxy", proxy.url)
        ask(server, session=session if lent else None)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        ask(server, session=session if lent else None)

        assert [request.target for request in proxy.requests] == [f"{server.url}/api/oauth/token"]
        assert [request.target for request in server.requests] == ["/api/oauth/token"]


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_ca_of_the_environment_is_trusted(
    ca: trustme.CA, bundle: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """TLS is verified with the bundle that the variable names."""
    monkeypatch.setenv(variable, bundle)
    with Loopback(OK, tls=tls(ca)) as server:
        assert ask(server).value == JWT


LONG_AGO = {
    name: datetime(year, 1, 1, tzinfo=timezone.utc) for name, year in (("not_before", 2001), ("not_after", 2002))
}


@pytest.mark.parametrize(
    ("trusted", "names", "options"),
    [
        pytest.param(False, ["localhost"], {}, id="not trusted"),
        pytest.param(True, ["localhost"], LONG_AGO, id="expired"),
        pytest.param(True, ["mention-me.com"], {}, id="of another host"),
    ],
)
def test_a_certificate_that_does_not_hold_fails_at_once(
    ca: trustme.CA,
    bundle: str,
    monkeypatch: pytest.MonkeyPatch,
    waits: list[float],
    *,
    trusted: bool,
    names: list[str],
    options: dict[str, Any],
) -> None:
    """It is no fault that passes: no second try, no request, and an `SSLError` as `requests` has it."""
    if trusted:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    with Loopback(OK, tls=tls(ca, *names, **options)) as server:
        error = failure(server)

        assert type(error) is requests.exceptions.SSLError
        assert (server.connections, server.requests, waits) == (1, [], [])


# A session that is lent


class Recorder(HTTPAdapter):
    """An adapter that keeps what it is given and knows whether it was closed."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.sent: list[dict[str, Any]] = []
        self.closed = False

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Keep the options."""
        self.sent.append(kwargs)
        return super().send(request, *args, **kwargs)

    def close(self) -> None:
        """Remember it."""
        self.closed = True
        super().close()


def test_a_lent_session_is_used_with_all_its_settings(ca: trustme.CA, bundle: str) -> None:
    """Adapters, CA, client certificate, headers and hooks are those of the session; our own headers come first."""
    seen: list[int] = []
    adapter = Recorder()
    with Loopback(OK, tls=tls(ca)) as server, requests.Session() as lent:
        lent.mount("https://", adapter)
        lent.verify = bundle
        lent.headers.update({"X-Team": "growth", "User-Agent": "caller/1", "Accept-Encoding": "gzip"})
        lent.hooks["response"].append(lambda response, **_: seen.append(response.status_code))

        ask(server, session=lent, timeout=(3, 4))

        [sent] = adapter.sent
        assert sent["verify"] == bundle
        assert sent["timeout"] == (pytest.approx(3), pytest.approx(4))
        assert sent["stream"] is True
        headers = server.requests[0].headers
        assert headers["x-team"] == "growth"
        assert headers["user-agent"] == f"requests-mentionme/{__version__}"
        assert headers["accept-encoding"] == "identity"
        assert seen == [200]


def test_the_proxies_of_a_lent_session_are_used(server: Loopback) -> None:
    """They are the session's own, not the environment's."""
    with Loopback(OK) as proxy, requests.Session() as lent:
        lent.proxies = {"http": proxy.url}
        ask(server, session=lent)

        assert [request.target for request in proxy.requests] == [f"{server.url}/api/oauth/token"]
        assert server.requests == []


@pytest.mark.parametrize("method", ["request", "send"])
def test_what_a_lent_session_overrides_is_used(server: Loopback, method: str) -> None:
    """A subclass that limits, traces or signs requests does so for token requests too, with its own state."""

    class Traced(requests.Session):
        def __init__(self) -> None:
            super().__init__()
            self.trace: list[str] = []

    def traced(self: Traced, *args: Any, **kwargs: Any) -> Any:
        self.trace.append(method)
        return getattr(super(Traced, self), method)(*args, **kwargs)

    setattr(Traced, method, traced)
    with Traced() as lent:
        ask(server, session=lent)

        assert lent.trace == [method]


def not_to_be_used(request: requests.PreparedRequest) -> NoReturn:
    """Be an auth that must not be asked."""
    pytest.fail(f"the session's auth was used for {request.url}")


@pytest.mark.parametrize("own", [("user", "password"), not_to_be_used], ids=["basic", "another"])
def test_the_auth_of_a_lent_session_is_not_used(server: Loopback, own: Any) -> None:
    """The token request has its credentials in its body."""
    with requests.Session() as lent:
        lent.auth = own
        ask(server, session=lent)

    assert "authorization" not in server.requests[0].headers


def test_a_session_may_be_lent_to_its_own_auth() -> None:
    """One session for the API and for its tokens is no recursion."""
    token = make_jwt()
    with Loopback(token_answer(token), Answer(body=b"{}")) as both, requests.Session() as session:
        session.auth = MentionMeAuth("ci_sample", SECRET, environment=both.url, session=session)

        assert session.get(f"{both.url}/customers", timeout=5).ok

    assert [request.headers.get("authorization") for request in both.requests] == [None, f"Bearer {token}"]


def leave_alone(_: requests.Response, **__: Any) -> None:
    """Be a hook."""


@pytest.mark.parametrize("status", [200, 302, 401, 503], ids=str)
def test_a_lent_session_stays_as_it_is(server: Loopback, waits: list[float], status: int) -> None:
    """No attribute, header, hook or cookie of it changes, whatever comes of the renewal; its cookies go out."""
    server.play(replace(OK, status=status, headers={"Set-Cookie": "theirs=1", "Location": "/"}))
    adapter = Recorder()
    with requests.Session() as lent:
        lent.mount("http://", adapter)
        lent.cookies.set("mine", "1")
        lent.auth = ("user", "password")
        lent.hooks["response"].append(leave_alone)

        def state() -> dict[str, Any]:
            held = {name: (id(value), repr(value)) for name, value in vars(lent).items()}
            return {**held, "hooks": {name: list(hooks) for name, hooks in lent.hooks.items()}}

        before = state()
        if status == 200:
            ask(server, session=lent)
        else:
            failure(server, session=lent)

        assert state() == before
        assert not adapter.closed
        assert server.requests[0].headers["cookie"] == "mine=1"
    assert adapter.closed
    assert len(waits) == (2 if status == 503 else 0)


def test_a_lent_session_keeps_its_connection(server: Loopback) -> None:
    """What was read to its end goes back to the session's pool, errors included."""
    server.play(OK, Answer(401, b"{}"), Answer(302, b"", {"Location": "/"}), OK)
    with requests.Session() as lent:
        ask(server, session=lent)
        failure(server, session=lent)
        failure(server, session=lent)
        ask(server, session=lent)

    assert [request.connection for request in server.requests] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "answer",
    [OK, Answer(401), Answer(404), Answer(302), Answer(200, b"no JSON"), Answer(body=ENDLESS[0], times=ENDLESS[1])],
    ids=["a token", "refused", "failed", "a redirect", "not JSON", "endless"],
)
def test_each_renewal_closes_a_connection_of_its_own(server: Loopback, answer: Answer) -> None:
    """No session is lent, so none is left open, stale or shared with a forked process."""
    server.play(answer)
    auth = MentionMeAuth("ci_sample", SECRET, environment=server.url)
    for number in (1, 2):
        auth.invalidate()
        if answer is OK:
            auth.access_token()
        else:
            with pytest.raises(MentionMeAuthError):
                auth.access_token()
        assert server.connections == number
        assert server.until(lambda: not server.open)


def test_an_interrupted_renewal_closes_its_connection(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C leaves nothing behind either."""

    def interrupt(_: float) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("requests_mentionme._endpoint.time.sleep", interrupt)
    server.play(Answer(503))

    with pytest.raises(KeyboardInterrupt):
        ask(server)

    assert server.until(lambda: server.connections == 1 and not server.open)


# Tries

PASSING = {"reset": RESET, "closed": Answer(fault="close"), "garbage": Answer(raw=b"garbage\r\n\r\n")}
PASSING |= {str(status): Answer(status) for status in (429, 500, 502, 503, 504, 599)}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("times", [1, 2])
def test_a_fault_that_may_pass_is_tried_again(server: Loopback, waits: list[float], fault: Answer, times: int) -> None:
    """Up to three tries in all bring a token."""
    server.play(*[fault] * times, OK)

    assert ask(server).value == JWT
    assert len(server.requests) == times + 1
    assert waits == [0.5, 1.0][:times]


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("tries", [3, 1])
def test_the_last_try_tells_what_went_wrong(server: Loopback, waits: list[float], fault: Answer, tries: int) -> None:
    """There are no more tries than asked for, and no wait after the last one."""
    server.play(*[fault] * tries, OK)

    error = failure(server, tries=tries)

    by_status = fault.fault is None and fault.raw is None
    assert type(error) is (TokenEndpointError if by_status else requests.ConnectionError)
    assert not by_status or error.response.status_code == fault.status
    assert len(server.requests) == tries
    assert len(waits) == tries - 1


@pytest.mark.parametrize("tries", [3, 1])
def test_a_refused_connection_is_tried_again(server: Loopback, waits: list[float], tries: int) -> None:
    """It is what an endpoint that restarts looks like."""
    server.refuse()

    assert type(failure(server, tries=tries)) is requests.ConnectionError
    assert len(waits) == tries - 1


@pytest.mark.parametrize(
    "kind", [requests.ConnectTimeout, requests.exceptions.ProxyError], ids=lambda kind: kind.__name__
)
def test_a_connection_that_does_not_come_about_is_tried_again(
    server: Loopback, waits: list[float], kind: type[requests.ConnectionError]
) -> None:
    """Nothing was sent, so another try does no harm."""
    faults = iter([kind(), kind()])

    class Unreachable(requests.Session):
        def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
            for fault in faults:
                raise fault
            return super().send(request, **kwargs)

    with Unreachable() as lent:
        assert ask(server, session=lent).value == JWT

    assert len(waits) == 2


@pytest.mark.parametrize("status", [300, 302, 304, 400, 401, 403, 404, 405, 410, 415, 422, 451])
def test_an_answer_that_stays_the_same_is_not_asked_for_again(
    server: Loopback, waits: list[float], status: int
) -> None:
    """A refusal or a redirect is final."""
    server.play(Answer(status))

    error = failure(server)

    assert type(error) is (InvalidClientError if status in (400, 401, 403) else TokenEndpointError)
    assert error.response.status_code == status
    assert f"POST {server.url}/api/oauth/token answered {status}" in str(error)
    assert (len(server.requests), waits) == (1, [])


BROKEN = {
    "no answer": (Answer(fault="hang"), requests.ReadTimeout),
    "half a head": (Answer(fault="hang", within="head"), requests.ReadTimeout),
    "half a body": (replace(OK, fault="hang", within="body"), requests.ConnectionError),
    "reset in the body": (replace(OK, fault="reset", within="body"), requests.exceptions.ChunkedEncodingError),
    "broken chunk": (replace(OK, chunked=True, fault="close", within="body"), requests.exceptions.ChunkedEncodingError),
}


@pytest.mark.parametrize(("answer", "kind"), BROKEN.values(), ids=BROKEN)
def test_a_fault_after_the_request_was_taken_is_not_tried_again(
    server: Loopback, waits: list[float], answer: Answer, kind: type[Exception]
) -> None:
    """A read timeout, or an answer that broke off: the endpoint was at work, and more requests don't help it."""
    server.play(answer, OK)

    assert type(failure(server, timeout=(5, 0.2))) is kind
    assert (len(server.requests), waits) == (1, [])


# Waits and the budget


def test_waits_grow_and_are_jittered(server: Loopback, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    """Each is drawn from the upper half of a range that doubles."""
    drawn: list[tuple[float, float]] = []

    def draw(least: float, most: float) -> float:
        drawn.append((least, most))
        return (least + most) / 2

    monkeypatch.setattr("requests_mentionme._endpoint.random.uniform", draw)
    server.play(Answer(503))

    failure(server)

    assert drawn[:2] == [(0.25, 0.5), (0.5, 1.0)]
    assert waits == [0.375, 0.75]


NAMED = {
    "seconds": ({"Retry-After": "3"}, 3),
    "a date": ({"Retry-After": "Tue, 24 Nov 2026 04:30:08 GMT", "Date": "Tue, 24 Nov 2026 04:30:00 GMT"}, 8),
    "the window's end": ({"X-RateLimit-Reset": "4"}, 4),
    "the end of a spent window": ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "4"}, 4),
    "both": ({"Retry-After": "3", "X-RateLimit-Reset": "4"}, 3),
    "less than the backoff": ({"Retry-After": "0.1"}, 0.1),
    "none": ({"Retry-After": "0"}, 0),
    "the past": ({"Retry-After": "-7"}, 0),
    "a window that is not spent": ({"X-RateLimit-Remaining": "7", "X-RateLimit-Reset": "4"}, None),
    "no number": ({"Retry-After": "soon"}, None),
    "no finite number": ({"Retry-After": "inf"}, None),
}


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("headers", "named"), NAMED.values(), ids=NAMED)
def test_the_time_that_the_endpoint_names_is_waited_for(
    server: Loopback, waits: list[float], status: int, headers: dict[str, str | None], named: float | None
) -> None:
    """The wait is at least the time named, and at least the backoff; the last error tells it."""
    server.play(Answer(status, headers=headers))

    error = failure(server)

    assert waits == [max(named or 0, 0.5), max(named or 0, 1.0)]
    assert error.retry_after == named
    assert (f"Try again in {named:.0f} s." in str(error)) if named is not None else ("Try again" not in str(error))


@pytest.mark.parametrize(
    ("named", "requested"),
    [("29.9", 2), ("30", 1), ("3600", 1), ("1e300", 1)],
    ids=["that just fits", "of the whole budget", "of an hour", "of aeons"],
)
def test_a_wait_is_not_begun_if_it_does_not_fit_the_budget(
    server: Loopback, waits: list[float], named: str, requested: int
) -> None:
    """It raises at once, and tells the time, up to a day."""
    server.play(Answer(429, headers={"Retry-After": named}), OK)

    with freeze_time("2026-11-24 04:30:00"):
        outcome = failure(server) if requested == 1 else ask(server)

    assert len(server.requests) == requested
    assert waits == ([29.9] if requested == 2 else [])
    assert getattr(outcome, "retry_after", None) == (min(float(named), 86_400) if requested == 1 else None)


def test_a_backoff_that_does_not_fit_the_budget_is_not_begun(server: Loopback, waits: list[float]) -> None:
    """The same holds where the endpoint named no time."""
    server.play(Answer(503))

    with freeze_time("2026-11-24 04:30:00"):
        error = failure(server, timeout=(0.1, 0.15))

    assert (len(server.requests), waits, error.retry_after) == (1, [], None)


def test_the_budget_counts_from_the_first_try(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two waits that fit one by one don't fit together."""
    server.play(Answer(503, headers={"Retry-After": "20"}))

    with freeze_time("2026-11-24 04:30:00") as clock:
        monkeypatch.setattr("requests_mentionme._endpoint.time.sleep", clock.tick)
        error = failure(server)

    assert (len(server.requests), error.retry_after) == (2, 20)


@pytest.mark.parametrize(
    ("overslept", "timeout"), [(0, (5, 6)), (3, (3, 3)), (5.999, (0.001, 0.001)), (50, (0.001, 0.001))]
)
def test_a_try_has_no_longer_timeouts_than_the_budget_left(
    monkeypatch: pytest.MonkeyPatch, overslept: float, timeout: tuple[float, float]
) -> None:
    """Where nothing is left of it, as a wait took longer than it should, next to nothing."""
    asked: list[tuple[float, float]] = []

    class Busy(requests.Session):
        def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
            asked.append(kwargs["timeout"])
            response = requests.Response()
            response.status_code, response.request, response.raw = 503, request, urllib3.HTTPResponse(io.BytesIO())
            response.headers["Retry-After"] = "24"
            return response

    endpoint = TokenEndpoint(Environment.at("http://127.0.0.1"), Busy(), (5, 10), 300)
    with freeze_time("2026-11-24 04:30:00") as clock:
        monkeypatch.setattr("requests_mentionme._endpoint.time.sleep", lambda wait: clock.tick(wait + overslept))
        with pytest.raises(TokenEndpointError):
            endpoint.request_token(CLIENT, 2)

    assert asked == [(5, 10), pytest.approx(timeout)]


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
def test_a_body_that_drips_ends_with_the_budget(server: Loopback, *, chunked: bool) -> None:
    """Each byte comes in time, and yet there is an end."""
    server.play(Answer(body=b" " * 1500, chunked=chunked, fault="drip", within="body", interval=0.01))

    started = time.perf_counter()
    error = failure(server, timeout=(0.2, 0.6))

    assert type(error) is TokenEndpointError
    url = f"{server.url}/api/oauth/token"
    assert str(error) == f"POST {url} answered, but did not come to an end within 1.6 s."
    assert (error.response, error.retry_after) == (None, None)
    assert 1.5 < time.perf_counter() - started < 12


# Limits of an answer


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("chunked", [False, True], ids=["plain", "chunked"])
def test_a_body_of_64_kib_is_the_largest(server: Loopback, version: str, *, chunked: bool) -> None:
    """One more byte is too many."""
    padded = Answer(body=OK.body.ljust(65_536), chunked=chunked and version == "HTTP/1.1", version=version)
    server.play(padded, replace(padded, body=padded.body + b" "))

    assert ask(server).value == JWT
    error = failure(server)
    assert type(error) is TokenResponseError
    assert "65536 bytes" in str(error)


@pytest.mark.parametrize("status", [200, 400, 404])
@pytest.mark.parametrize("framing", ["length", "chunked", "none"])
def test_an_endless_body_is_not_read_on(server: Loopback, status: int, framing: str) -> None:
    """The connection is closed instead, early; the status has told enough."""
    version = "HTTP/1.0" if framing == "none" else "HTTP/1.1"
    body, times = ENDLESS
    server.play(Answer(status, body, times=times, chunked=framing == "chunked", version=version))

    kinds = {200: TokenResponseError, 400: InvalidClientError, 404: TokenEndpointError}
    with requests.Session() as lent:
        assert type(failure(server, session=lent)) is kinds[status]
        assert server.until(lambda: server.requests[0].finished and not server.open)
    assert server.requests[0].sent < 100_000_000


@pytest.mark.parametrize("coding", ["gzip", "GZip", "deflate", "br", "zstd", "identity, gzip", "x-unknown"])
def test_a_compressed_answer_is_refused(server: Loopback, coding: str) -> None:
    """It was ruled out, and might unpack to more than was read."""
    server.play(replace(OK, headers={"Content-Encoding": coding}))

    error = failure(server)

    assert type(error) is TokenResponseError
    assert "compressed" in str(error)
    assert len(server.requests) == 1


@pytest.mark.parametrize("coding", ["identity", "Identity", None])
def test_an_answer_that_says_it_is_not_compressed_is_fine(server: Loopback, coding: str | None) -> None:
    """`identity` is what was asked for."""
    server.play(replace(OK, headers={"Content-Encoding": coding}))

    assert ask(server).value == JWT


def test_a_refusal_that_is_compressed_is_a_refusal(server: Loopback) -> None:
    """Its status tells enough; its body is left alone."""
    server.play(Answer(401, b"not gzip at all", {"Content-Encoding": "gzip"}))

    error = failure(server)

    assert type(error) is InvalidClientError
    assert error.response.content == b""


@pytest.mark.parametrize("fault", ["reset", "close", "hang"])
def test_a_refusal_that_breaks_off_is_a_refusal(server: Loopback, fault: Any) -> None:
    """Its status tells enough."""
    server.play(Answer(401, b'{"message": "Unknown client."}', fault=fault, within="body"))

    error = failure(server, timeout=(5, 0.2))

    assert type(error) is InvalidClientError
    assert error.response.status_code == 401


UNUSABLE = {
    "no content": Answer(204),
    "empty": Answer(200),
    "HTML": Answer(200, b"<html>Sign in</html>"),
    "broken JSON": Answer(200, b'{"access_token": "eyJ'),
    "not UTF-8": Answer(200, b'{"access_token": "\xff"}'),
    "a list": Answer(200, b"[]"),
    "nested too deep": Answer(200, b'{"a":' * 9000),
    "no token": Answer(200, b'{"token_type": "bearer"}'),
    "an empty token": token_answer(""),
    "a token that is no text": Answer(200, b'{"access_token": 7}'),
    "a token with a line break": token_answer("eyJ\r\nX-Injected: 1"),
    "another type of token": token_answer("eyJ", token_type="mac"),
    "another type, and words about the token": token_answer("eyJ", token_type="mac", message="Have eyJ."),
    "no life": token_answer("eyJ", 0),
    "no life, and words about the token": token_answer("eyJ", 0, error="eyJ is over"),
    "too large": Answer(200, b" " * 65_537),
    "compressed": replace(OK, headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("answer", UNUSABLE.values(), ids=UNUSABLE)
def test_a_2xx_answer_without_a_usable_token_is_an_error_of_its_own(
    server: Loopback, waits: list[float], answer: Answer
) -> None:
    """It carries no response, as that may hold a token, and is not asked for again."""
    server.play(answer)

    with pytest.raises(TokenResponseError, match=f"^POST {server.url}/api/oauth/token answered, but ") as caught:
        MentionMeAuth("ci_sample", SECRET, environment=server.url).access_token()

    assert (caught.value.response, caught.value.request) == (None, None)
    assert "eyJ" not in texts_of(caught.value)
    assert (len(server.requests), waits) == (1, [])


def test_a_2xx_answer_without_a_token_may_say_why(server: Loopback) -> None:
    """What the server says is quoted, and the URL tells where it was said."""
    server.play(Answer(200, json.dumps({"error": "down", "message": f"No service for {SECRET}."}).encode()))

    assert str(failure(server)) == (
        f"POST {server.url}/api/oauth/token answered, but without an access_token, "
        "'down: No service for [secret].'. No token was obtained."
    )


@pytest.mark.parametrize("status", [200, 201, 203, 299])
def test_any_2xx_answer_may_bring_a_token(server: Loopback, status: int) -> None:
    """The documentation knows more kinds of success than 200."""
    server.play(replace(OK, status=status))

    assert ask(server).value == JWT


# What errors say, and what they never say


CHECK = " Check the client id and secret: are they of an API key of {url}?"
REDIRECT = " A redirect is not followed, since the client secret would go along."


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        *[(status, REDIRECT) for status in (300, 302, 304, 308, 399)],
        *[(status, CHECK) for status in (400, 401, 403)],
        *[(status, "") for status in (402, 404, 405, 451)],
    ],
)
def test_an_error_says_who_answered_what_and_what_to_do(server: Loopback, status: int, hint: str) -> None:
    """To the letter, as it may be all that is in a log."""
    server.play(Answer(status, b'{"code": "7", "message": "Not today."}', {"Location": "/elsewhere"}))
    said = "" if status == 304 else ", 'Not today.'"  # it has no body

    message = str(failure(server))

    assert message == f"POST {server.url}/api/oauth/token answered {status}{said}.{hint.format(url=server.url)}"


def test_a_date_to_wait_for_counts_from_the_local_clock_where_the_answer_has_none(server: Loopback) -> None:
    """Where the server has a clock of its own, that one counts."""
    server.play(Answer(503, headers={"Retry-After": "Tue, 24 Nov 2026 04:31:00 GMT", "Date": None}))

    with freeze_time("2026-11-24 04:30:10"):
        assert failure(server).retry_after == 50


def test_the_response_of_an_error_is_like_any_other(server: Loopback) -> None:
    """It shows its status, reason, URL, headers, text in its encoding, and how long it took."""
    server.play(Answer(404, "{'wo': 'Straße'}".encode("latin-1"), {"Content-Type": "text/plain; charset=latin-1"}))

    response = failure(server).response

    assert (response.status_code, response.reason, response.ok) == (404, "Not Found", False)
    assert response.url == f"{server.url}/api/oauth/token"
    assert response.headers["content-type"] == "text/plain; charset=latin-1"
    assert b"".join(response.iter_content(5)) == response.content
    assert (response.encoding, response.text) == ("latin-1", "{'wo': 'Straße'}")
    assert response.elapsed.total_seconds() > 0
    with pytest.raises(requests.HTTPError, match="404 Client Error: Not Found for url: http"):
        response.raise_for_status()


SHAPES = {
    "Mention Me": ({"code": "401", "message": "Unknown client."}, "'Unknown client.'"),
    "a numeric code": ({"code": 401, "message": "Unknown client."}, "'Unknown client.'"),
    "RFC 6749": ({"error": "invalid_client", "error_description": "Unknown."}, "'invalid_client: Unknown.'"),
    "RFC 6749, the short form": ({"error": "invalid_client"}, "'invalid_client'"),
    "long": ({"message": "x" * 500}, f"'{'x' * 200}'."),
    "with control characters": ({"message": "a\r\nb\x1b[31m"}, r"'a\r\nb\x1b[31m'"),
}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 500])
@pytest.mark.parametrize(("body", "quoted"), SHAPES.values(), ids=SHAPES)
def test_an_error_quotes_what_the_endpoint_said(
    server: Loopback, status: int, body: dict[str, object], quoted: str
) -> None:
    """In either shape; the response is there for more."""
    server.play(Answer(status, json.dumps(body).encode()))

    error = failure(server, tries=1)

    assert f"answered {status}, {quoted}" in str(error)
    assert error.response.json() == body
    assert error.request is not None
    assert ("API key" in str(error)) == (status < 404)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"message": 7, "error": ""}', b"\xff"])
def test_an_error_without_a_message_names_the_status(server: Loopback, body: bytes) -> None:
    """What is no message is not quoted, but stays readable."""
    server.play(Answer(404, body))

    error = failure(server)

    assert str(error) == f"POST {server.url}/api/oauth/token answered 404."
    assert error.response.content == body


SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in JSON": lambda secret: json.dumps(secret)[1:-1],
    "in JSON of UTF-8": lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    "in JSON with escaped slashes": lambda secret: json.dumps(secret)[1:-1].replace("/", r"\/"),
    "in JSON in JSON": lambda secret: json.dumps(json.dumps(secret)[1:-1])[1:-1],
}
SECRETS = {"letters": SECRET, "signs": 'cs_a"b\\c/d+=%', "not ASCII": "cs_cl\u00e9_\u043a\u043b\u044e\u0447"}
ECHOES = {
    "in a message": Answer(401, b'{"message": "%s"}'),
    "in a description": Answer(400, b'{"error": "invalid_client", "error_description": "It was %s."}'),
    "in another field": Answer(403, b'{"code": "403", "message": "No.", "request": {"client_secret": "%s"}}'),
    "in a text": Answer(500, b"<p>%s</p>", {"Content-Type": "text/html; charset=utf-8"}),
    "in the text of a redirect": Answer(302, b"%s", {"Location": "/?secret=%s"}),
}
HEADS = {
    "in a header": Answer(401, headers={"WWW-Authenticate": 'Bearer error_description="%s"'}),
    "in a cookie": Answer(503, headers={"Set-Cookie": "echo=%s"}),
    "in the reason": Answer(raw=b"HTTP/1.1 401 %s\r\nContent-Length: 0\r\n\r\n"),
}


def filled(answer: Answer, echo: str) -> Answer:
    """Return an answer with an echo in its place."""
    data = echo.encode()
    headers = {name: value and value.replace("%s", echo) for name, value in answer.headers.items()}
    raw = answer.raw and answer.raw.replace(b"%s", data)
    return replace(answer, body=answer.body.replace(b"%s", data), headers=headers, raw=raw)


def assert_hidden(error: BaseException, secret: str) -> None:
    """Assert that nothing of an error shows the secret in any spelling."""
    shown = texts_of(error)
    for how, spell in SPELLINGS.items():
        spelled = spell(secret)
        for variant in (spelled, repr(spelled)[1:-1], spelled.encode().decode("latin-1"), repr(spelled.encode())[2:-1]):
            assert variant not in shown, how


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_a_secret_that_the_body_echoes_is_shown_nowhere(
    server: Loopback, echo: Answer, secret: str, spell: Callable[[str], str]
) -> None:
    """Not by the error, its response or request, a pickle of it, or what it came from."""
    if echo.status == 302 and not spell(secret).isascii():
        echo = replace(echo, headers={})
    server.play(filled(echo, spell(secret)))
    endpoint = TokenEndpoint(Environment.at(server.url), None, (5, 5), 300)

    with pytest.raises(MentionMeAuthError, match=f"answered {echo.status}") as caught:
        endpoint.request_token(ClientCredentials("ci_sample", secret), 1)

    assert caught.value.response is not None
    assert "[secret]" in caught.value.response.text
    assert_hidden(caught.value, secret)


@pytest.mark.parametrize("spell", [SPELLINGS["as it is"], SPELLINGS["in JSON"]], ids=["as it is", "in JSON"])
@pytest.mark.parametrize("secret", [SECRETS["letters"], SECRETS["signs"]], ids=["letters", "signs"])
@pytest.mark.parametrize("echo", HEADS.values(), ids=HEADS)
def test_a_secret_that_the_head_echoes_is_shown_nowhere(
    server: Loopback, echo: Answer, secret: str, spell: Callable[[str], str]
) -> None:
    """A header, a cookie or the reason phrase may have it too."""
    server.play(filled(echo, spell(secret)))
    endpoint = TokenEndpoint(Environment.at(server.url), None, (5, 5), 300)

    with pytest.raises(MentionMeAuthError) as caught:
        endpoint.request_token(ClientCredentials("ci_sample", secret), 1)

    assert caught.value.response is not None
    assert_hidden(caught.value, secret)


class Failing(requests.Session):
    """A session with a way of its own to fail."""

    def __init__(self, fail: Callable[[requests.PreparedRequest], NoReturn]) -> None:
        """Take how it fails."""
        super().__init__()
        self.fail = fail

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:
        """Fail."""
        self.fail(request)


def raise_for_status(response: requests.Response, **_: Any) -> None:
    """Be the hook that many sessions have."""
    response.raise_for_status()


def chained(request: requests.PreparedRequest) -> NoReturn:
    """Raise an error that came from one with the request."""
    first = requests.ConnectionError("first", request=request)
    raise requests.exceptions.InvalidSchema("second", request=request) from first


def twice_chained(request: requests.PreparedRequest) -> NoReturn:
    """Raise an error that has a cause, and another one that it came up in."""
    error, cause = requests.exceptions.InvalidSchema(request=request), requests.Timeout(request=request)
    error.__context__ = requests.ConnectionError(request=request)
    raise error from cause


def of_another_kind(request: requests.PreparedRequest) -> NoReturn:
    """Raise an error that `requests` does not know, from one with the request."""
    raise LookupError("of the caller's own") from requests.ConnectionError(request=request)


def assert_redacted(error: BaseException) -> None:
    """Assert that no request attached to an error, or to what it came from, has its body or leads to the secret."""
    attached: list[Any] = [getattr(each, "request", None) for each in chain_of(error)]
    responses: list[Any] = [getattr(each, "response", None) for each in chain_of(error)]
    attached += [response.request for response in responses if response is not None]
    for request in attached:
        if request is not None:
            assert request.body == "[redacted]"
            assert request.url.endswith("/api/oauth/token")
            assert request.hooks == {"response": []}
    assert SECRET not in texts_of(error)


LEAVING = {
    "reset": (RESET, requests.ConnectionError),
    "read timeout": (Answer(fault="hang"), requests.ReadTimeout),
    "hang in the body": (replace(OK, fault="hang", within="body"), requests.ConnectionError),
    "broken chunk": (replace(OK, chunked=True, fault="close", within="body"), requests.exceptions.ChunkedEncodingError),
    "refused": (Answer(401), InvalidClientError),
    "redirect": (Answer(302, headers={"Location": "/"}), TokenEndpointError),
    "server error": (Answer(500), TokenEndpointError),
}


@pytest.mark.parametrize(("answer", "kind"), LEAVING.values(), ids=LEAVING)
@pytest.mark.parametrize("lent", [False, True], ids=["own session", "lent session"])
def test_no_error_leaves_with_the_body_of_its_request(
    server: Loopback, answer: Answer, kind: type[Exception], *, lent: bool
) -> None:
    """An error of the network shows where it was, but not the secret."""
    server.play(answer)
    with requests.Session() as session:
        error = failure(server, session=session if lent else None, timeout=(5, 0.3), tries=1)

    assert type(error) is kind
    assert error.request is not None or answer.within == "body"  # where `requests` attaches none
    assert_redacted(error)


@pytest.mark.parametrize("fail", [chained, twice_chained, of_another_kind])
def test_no_error_of_a_lent_session_leaves_with_the_body_of_its_request(
    server: Loopback, fail: Callable[[requests.PreparedRequest], NoReturn]
) -> None:
    """It may raise what it likes, from what it likes."""
    with Failing(fail) as lent, pytest.raises((LookupError, requests.exceptions.InvalidSchema)) as caught:
        ask(server, session=lent)

    assert isinstance(caught.value.__cause__, requests.RequestException)
    assert_redacted(caught.value)


def test_no_error_of_a_hook_leaves_with_the_body_of_its_request(server: Loopback) -> None:
    """A hook that raises for the status attaches the response, and with it the request."""
    server.play(Answer(401))
    with requests.Session() as lent:
        lent.hooks["response"].append(raise_for_status)
        error = failure(server, session=lent)

    assert type(error) is requests.HTTPError
    assert error.response.status_code == 401
    assert_redacted(error)


def test_no_error_of_a_connection_leaves_with_the_body_of_its_request(
    ca: trustme.CA, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    """Those before a request is sent have it attached too."""
    with Loopback(OK, tls=tls(ca)) as server, Loopback(OK) as proxy:
        untrusted = failure(server)
        server.refuse()
        refused = failure(server)
        proxy.refuse()
        monkeypatch.setenv("https_proxy", proxy.url)
        no_proxy = failure(server)

    errors = [untrusted, refused, no_proxy]
    known = requests.exceptions
    assert [type(error) for error in errors] == [known.SSLError, known.ConnectionError, known.ProxyError]
    for error in errors:
        assert error.request is not None
        assert_redacted(error)
    assert len(waits) == 4


def test_retries_of_an_adapter_end_in_its_own_error(server: Loopback, waits: list[float]) -> None:
    """A `RetryError` is no fault of a connection, so it is not tried again; the secret stays out of it."""
    server.play(Answer(503))
    with requests.Session() as lent:
        retry = urllib3.Retry(2, status_forcelist=[503], allowed_methods=None, backoff_factor=0)
        lent.mount("http://", HTTPAdapter(max_retries=retry))
        error = failure(server, session=lent)

    assert type(error) is requests.exceptions.RetryError
    assert error.request is not None
    assert_redacted(error)
    assert (len(server.requests), waits) == (3, [])


def test_a_chain_of_errors_may_be_a_ring(server: Loopback) -> None:
    """Python prints such a chain, so it has an end here too."""

    class Counted(requests.PreparedRequest):
        copies = 0

        def copy(self) -> requests.PreparedRequest:
            self.copies += 1
            assert self.copies < 100, "it goes round and round"
            return self

    def fail(request: requests.PreparedRequest) -> NoReturn:
        counted = Counted()
        vars(counted).update(vars(request))
        error, other = requests.ConnectionError(request=counted), requests.Timeout(request=counted)
        other.__context__ = error
        raise error from other

    with Failing(fail) as lent:
        error = failure(server, session=lent, tries=1)

    assert error.request is not None
    assert error.__cause__.__context__ is error


def test_the_request_that_a_hook_holds_stays_whole(server: Loopback) -> None:
    """Redaction makes a copy: what a lent session still works with, say to send it again, is as it was."""
    held: list[requests.PreparedRequest] = []
    server.play(Answer(401))
    with requests.Session() as lent:
        lent.hooks["response"].append(lambda response, **_: held.append(response.request))
        failure(server, session=lent)

    assert json.loads(held[0].body or "")["client_secret"] == SECRET


@pytest.mark.parametrize(
    "answer", [RESET, Answer(401), Answer(503, headers={"Retry-After": "60"})], ids=["network", "refused", "busy"]
)
def test_an_error_survives_a_pickle(server: Loopback, waits: list[float], answer: Answer) -> None:
    """What a worker sends to its parent says the same there."""
    server.play(answer)

    error = failure(server)
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert getattr(copy, "retry_after", None) == getattr(error, "retry_after", None)
    assert isinstance(error, MentionMeAuthError) is False or str(copy) == str(error)
    assert copy.request.body == "[redacted]"


def test_only_a_token_endpoint_error_names_a_time(server: Loopback) -> None:
    """To wait does not mend credentials; any other answer may name a time, though it is not tried again."""
    server.play(Answer(404, headers={"Retry-After": "5"}), Answer(401, headers={"Retry-After": "5"}))

    not_found, refused = failure(server), failure(server)

    assert not_found.retry_after == 5
    assert not hasattr(refused, "retry_after")
    assert len(server.requests) == 2


# Arguments


@pytest.mark.parametrize(
    ("client_id", "client_secret", "kind", "named"),
    [
        ("", "s", ValueError, "client_id"),
        ("i", "", ValueError, "client_secret"),
        (None, "s", TypeError, "client_id"),
        ("i", b"cs_bytes", TypeError, "client_secret"),
    ],
)
def test_credentials_are_text_that_is_not_empty(
    client_id: Any, client_secret: Any, kind: type[Exception], named: str
) -> None:
    """The error names the argument and does not show it."""
    with pytest.raises(kind, match=f"^{named} must be a non-empty string$"):
        ClientCredentials(client_id, client_secret)


def test_credentials_do_not_show_the_secret() -> None:
    """Neither by `repr` nor by `str`."""
    assert SECRET not in f"{CLIENT!r} {CLIENT}"


def test_others_wait_for_the_budget_and_one_more_read(server: Loopback) -> None:
    """A read may begin just before the budget ends."""
    assert TokenEndpoint(Environment.at(server.url), None, (5, 10), 300).patience == 2 * (5 + 10) + 10
