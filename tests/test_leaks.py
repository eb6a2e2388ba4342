"""No token and no secret where it does not belong: hosts over TLS, redirects, netrc, proxies, pickles, errors."""

import logging
import pickle
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
import trustme
from loopback import Answer, Loopback, Request, make_jwt, token_answer

from requests_mentionme import Environment, MentionMeAuth

SECRET = 's3cret "with" quotes\\'
REDIRECTS = [301, 302, 303, 307, 308]


class World(NamedTuple):
    """Servers over TLS under one CA, and what was issued."""

    api: Loopback  # serves tokens too
    sibling: Loopback  # trusted, on another port
    foreign: Loopback  # another host
    plain: Loopback  # over http
    issued: list[str]
    auth: MentionMeAuth
    session: requests.Session

    @property
    def foreign_url(self) -> str:
        """The foreign server by another host name than the API's."""
        return f"https://127.0.0.1:{self.foreign.port}"


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """A certificate authority."""
    return trustme.CA()


@pytest.fixture
def world(ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Run the servers; the API and its sibling want the newest token, the others answer 200."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(bundle)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    issued: list[str] = []

    def judge(request: Request) -> Answer:
        if request.target == "/api/oauth/token":
            issued.append(make_jwt())
            return token_answer(issued[-1])
        accepted = request.headers.get("authorization") == f"Bearer {issued[-1]}"
        return Answer(200 if accepted else 401, b"{}")

    with (
        Loopback(judge, tls=context) as api,
        Loopback(judge, tls=context) as sibling,
        Loopback(Answer(), tls=context) as foreign,
        Loopback(Answer()) as plain,
        requests.Session() as session,
    ):
        environment = Environment("two hosts", f"{api.url}/api/oauth/token", frozenset({api.url, sibling.url}))
        session.verify = str(bundle)
        session.auth = auth = MentionMeAuth("an-id", SECRET, environment=environment)
        auth.access_token()
        yield World(api, sibling, foreign, plain, issued, auth, session)


def redirecting(world: World, status: int, *locations: str) -> None:
    """Have the API redirect `/start` to the first of *locations*, and each server on to the next."""
    judge = world.api.script[0]

    def start(request: Request) -> Answer:
        assert callable(judge)
        if request.target != "/start":
            return judge(request)
        return Answer(status, headers={"Location": locations[0]})

    world.api.play(start)
    if len(locations) > 1:
        world.foreign.play(Answer(status, headers={"Location": locations[1]}))


def heard(server: Loopback) -> str:
    """Return all that a server was told."""
    return "\n".join(f"{request.target} {request.headers} {request.body!r}" for request in server.requests)


def assert_nothing_secret(text: str, world: World) -> None:
    """Fail if *text* holds the client secret or a token."""
    for secret in (SECRET, SECRET[:6], *world.issued, "Bearer"):
        assert secret not in text


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("answer", [200, 401], ids=["accepts", "answers 401"])
@pytest.mark.parametrize("where", ["another host", "another port", "http"])
def test_a_redirect_takes_no_token_to_a_foreign_origin(world: World, status: int, answer: int, where: str) -> None:
    """Neither along with the redirect nor for a 401 there, for which the hook would have another one ready."""
    target, url = {
        "another host": (world.foreign, world.foreign_url),
        "another port": (world.foreign, world.foreign.url),
        "http": (world.plain, world.plain.url),
    }[where]
    target.play(Answer(answer))
    redirecting(world, status, f"{url}/there")
    response = world.session.post(f"{world.api.url}/start", json={"a": 1}, timeout=5)
    assert response.status_code == answer
    assert [request.target for request in target.requests] == ["/there"]
    assert_nothing_secret(heard(target), world)
    assert len(world.issued) == 1


@pytest.mark.parametrize("status", REDIRECTS)
def test_a_redirect_to_a_trusted_sibling_is_healed_there(world: World, status: int) -> None:
    """`requests` strips the token on the way; the sibling's 401 brings it back, without a token request."""
    redirecting(world, status, f"{world.sibling.url}/there")
    response = world.session.post(f"{world.api.url}/start", json={"a": 1}, timeout=5)
    assert response.status_code == 200
    sent = [request.headers.get("authorization") for request in world.sibling.requests]
    assert sent == [None, f"Bearer {world.issued[0]}"]
    assert len(world.issued) == 1


@pytest.mark.parametrize("status", REDIRECTS)
def test_a_redirect_away_and_back_is_healed_at_the_end(world: World, status: int) -> None:
    """The foreign host in between sees no token, the API at the end gets one."""
    redirecting(world, status, f"{world.foreign_url}/there", f"{world.api.url}/end")
    assert world.session.get(f"{world.api.url}/start", timeout=5).status_code == 200
    assert_nothing_secret(heard(world.foreign), world)
    assert len(world.issued) == 1


@pytest.mark.parametrize("status", REDIRECTS)
def test_a_redirect_within_the_api_keeps_the_token(world: World, status: int) -> None:
    """And where the token was replaced in the meantime, a comparison heals it without a token request."""
    redirecting(world, status, "/end")
    assert world.session.get(f"{world.api.url}/start", timeout=5).status_code == 200
    prepared = world.session.prepare_request(requests.Request("GET", f"{world.api.url}/start"))
    world.auth.invalidate()
    world.auth.access_token()
    assert world.session.send(prepared, timeout=5).status_code == 200
    assert len(world.issued) == 2


def test_a_foreign_401_gets_no_token_on_a_direct_request(world: World) -> None:
    """A session that is used for other hosts too tells them nothing."""
    world.foreign.play(Answer(401, headers={"WWW-Authenticate": "Bearer"}))
    for url in (world.foreign_url, world.foreign.url, world.plain.url):
        world.session.get(url, timeout=5)
    assert_nothing_secret(heard(world.foreign) + heard(world.plain), world)


def test_an_upgrade_from_http_brings_no_token_along(world: World) -> None:
    """An http URL gets no token, nor does the https hop that it redirects to: there the API's 401 is final."""
    world.plain.play(Answer(301, headers={"Location": f"{world.api.url}/end"}))
    assert world.session.get(f"{world.plain.url}/start", timeout=5).status_code == 401
    assert "authorization" not in world.api.requests[-1].headers


def test_netrc_neither_joins_a_token_request_nor_replaces_the_token_for_good(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a redirect `requests` puts netrc's Basic in the token's place; the 401 for that brings the token back."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login joe password netrc-pw\nmachine 127.0.0.1 login joe password netrc-pw\n")
    monkeypatch.setenv("NETRC", str(netrc))
    redirecting(world, 302, "/end")
    world.auth.invalidate()
    assert world.session.get(f"{world.api.url}/start", timeout=5).status_code == 200
    sent = {
        target: [r.headers.get("authorization", "").split(" ")[0] for r in world.api.requests if r.target == target]
        for target in ("/api/oauth/token", "/start", "/end")
    }
    assert sent == {"/api/oauth/token": ["", ""], "/start": ["Bearer"], "/end": ["Basic", "Bearer"]}
    redirecting(world, 302, f"{world.foreign_url}/there")
    world.session.get(f"{world.api.url}/start", timeout=5)
    assert_nothing_secret(heard(world.foreign), world)


def test_a_proxy_is_told_no_token_for_a_foreign_host(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy for plain http reads what it passes on; to one for https, a tunnel is all that is asked for."""
    monkeypatch.setenv("HTTP_PROXY", world.plain.url)
    monkeypatch.setenv("HTTPS_PROXY", world.plain.url)
    world.session.get("http://foreign.example/", timeout=5)
    world.plain.play(Answer(502))
    for url in ("https://foreign.example/", f"{world.api.url}/end"):
        with pytest.raises(requests.exceptions.ProxyError):
            world.session.get(url, timeout=5)
    methods = [request.method for request in world.plain.requests]
    assert methods == ["GET", "CONNECT", "CONNECT"]
    assert_nothing_secret(heard(world.plain), world)


def test_pickled_requests_and_responses_hold_no_secret(world: World) -> None:
    """A healed response carries its history along; the secret is in none of it."""
    prepared = world.session.prepare_request(requests.Request("GET", f"{world.api.url}/end"))
    world.auth.invalidate()
    world.auth.access_token()
    response = world.session.send(prepared, timeout=5)
    assert response.history
    for thing in (prepared, response, response.history):
        assert SECRET.encode() not in pickle.dumps(thing)
        assert SECRET[:6].encode() not in pickle.dumps(thing)


TOKEN_FAULTS: dict[str, Answer | Callable[[Request], Answer]] = {
    "echoes the request": lambda request: Answer(400, b'{"message": ' + _quoted(request.body) + b"}"),
    "echoes it in error_description": lambda request: Answer(
        401, b'{"error": "invalid_client", "error_description": ' + _quoted(request.body) + b"}"
    ),
    "echoes it as text": lambda request: Answer(503, request.body),
    "echoes it beside no token": lambda request: Answer(200, b'{"message": ' + _quoted(request.body) + b"}"),
    "redirects with it": lambda request: Answer(307, request.body, {"Location": f"/?{request.body.decode()}"}),
    "not JSON": Answer(200, b"<html>"),
    "token with a line break": lambda _: token_answer(f"{make_jwt()}\r\nX: y"),
    "token of another type": lambda _: token_answer(make_jwt(), token_type="mac"),
    "token that has expired": lambda _: token_answer(make_jwt(exp=1), expires_in=0),
    "reset": Answer(fault="reset"),
    "broken off": Answer(body=b'{"access_token": "eyJ', fault="close", within="body"),
    "hang": Answer(fault="hang"),
}


def _quoted(body: bytes) -> bytes:
    return b'"' + body.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def told_by(error: BaseException) -> Iterator[str]:
    """Yield all that an error tells: texts, attributes, what is attached, and what it came from."""
    link: BaseException | None = error
    while link is not None:
        yield from (str(link), repr(link), repr(link.args), repr(vars(link)))
        for request in (getattr(link, "request", None), getattr(getattr(link, "response", None), "request", None)):
            if request is not None:
                yield from (repr(request.body), repr(request.headers), request.url, repr(request.hooks))
        response = getattr(link, "response", None)
        if response is not None:
            yield from (response.text, repr(vars(response)), repr(response.headers))
        if isinstance(link, requests.RequestException):
            yield pickle.dumps(link.response).decode("latin-1") + pickle.dumps(link.request).decode("latin-1")
        link = link.__cause__ or link.__context__


@pytest.mark.parametrize("fault", TOKEN_FAULTS)
def test_no_error_of_a_token_request_holds_a_secret(
    world: World, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in its text, its attributes, its context, what is attached to it, or the log."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("requests_mentionme._endpoint.time.sleep", lambda _: None)
    world.plain.play(TOKEN_FAULTS[fault])
    auth = MentionMeAuth("an-id", SECRET, environment=world.plain.url, timeout=0.5)
    with pytest.raises(requests.RequestException) as raised:
        auth.access_token()
    everything = "\n".join([*told_by(raised.value), caplog.text])
    spellings: list[Any] = [SECRET, SECRET[:6], "s3cret", "eyJ"]
    for spelling in spellings:
        assert spelling not in everything
    assert raised.value.request is None or raised.value.request.body == "[redacted]"
