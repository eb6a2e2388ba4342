"""Neither the client secret nor a token is in what an error, a log line, a `repr` or a pickle shows.

Error reporters show the local variables of each frame in a traceback, as does `traceback` with `capture_locals=True`.
"""

import asyncio
import builtins
import functools
import gc
import inspect
import io
import itertools
import json
import logging
import pickle
import re
import ssl
import sys
import time
import traceback
from contextlib import suppress
from types import FunctionType
from unittest import mock
from urllib.parse import quote

import pytest
import requests
import urllib3
from hypothesis import example, given, settings
from hypothesis import strategies as st
from in_memory import API, LONG, STALE, Gate, TokenEndpoint, auth_with, session_with
from in_memory import Answer as Fields
from loopback import Answer, Loopback, token_answer
from stores import Failing

import requests_mentionme
from requests_mentionme import MentionMeAuth, TokenResponseError

SECRET = "the-s3cret"  # what `auth_with` takes, too
TOKEN = re.compile(r"token-\d")  # all tokens in here are called like this
LIBRARIES = tuple(library.__path__[0] for library in (requests, requests_mentionme))


def chain_of(error):
    links = [error]
    for link in links:
        more = (link.__cause__, link.__context__, *(getattr(link, "exceptions", ()) or ()))
        links += [each for each in more if isinstance(each, BaseException) and each not in links]
    return links


def frames_of(error):
    """Return the frames that a reporter shows, but those above `requests` and this library: they are the caller's."""
    links = chain_of(error)
    stacks = [traceback.TracebackException.from_exception(link, capture_locals=True).stack for link in links]
    own = itertools.dropwhile(lambda frame: not frame.filename.startswith(LIBRARIES), stacks[0])
    return list(itertools.chain(own, *stacks[1:]))


def leaks(text):
    return SECRET in text or TOKEN.search(text) is not None


def assert_frames_are_clean(error):
    """Fail if the local variables of a frame show the secret or a token; the frames have a file and a line."""
    frames = frames_of(error)
    assert [f"{it.filename}:{it.lineno} {it.name}: {it.locals}" for it in frames if leaks(str(it.locals))] == []
    assert all(frame.filename and frame.lineno for frame in frames)


def told_by(error):
    """Return all that a log, a debugger or a pickle shows of an error, apart from its frames."""
    told = []
    for link in chain_of(error):
        told += [str(link), link.args, vars(link)]
        response = getattr(link, "response", None)
        if response is not None:
            told += [response.text, response.content, response.reason, vars(response), *response.headers.values()]
        attached = (getattr(link, "request", None), getattr(response, "request", None))
        told += [vars(request) for request in attached if request is not None]
        if isinstance(link, requests.RequestException):
            told.append(pickle.dumps([link, link.request, link.response]).decode("latin-1"))
    return "\n".join(each if isinstance(each, str) else repr(each) for each in told)


def assert_clean(error):
    """Fail if an error shows the secret or a token, or if a request attached to it has its body or leads to more."""
    assert_frames_are_clean(error)
    assert not leaks(told_by(error))
    for link in chain_of(error):
        for holder in (link, getattr(link, "response", None)):
            request = getattr(holder, "request", None)
            assert request is None or (request.body, request.hooks) == ("[redacted]", {"response": []})


def raised_by(call):
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - an interrupt is one of many things it may be
        call()
    return raised.value


def fail_with_a_secret():
    held = {"client_secret": SECRET}
    raise LookupError(f"no key among {len(held)}")


def fail_from_one_with_a_secret(kind):
    if kind == "cause":
        raise ValueError(kind) from raised_by(fail_with_a_secret)
    if kind == "member of a group":
        raise getattr(builtins, "ExceptionGroup")("several", [ValueError(kind), raised_by(fail_with_a_secret)])  # noqa: B009
    try:
        fail_with_a_secret()
    except LookupError:
        raise ValueError(kind) from None  # it is suppressed, but still there


CHAINS = ["cause", "suppressed context", *["member of a group"] * (sys.version_info >= (3, 11))]


@pytest.mark.parametrize("kind", [*CHAINS, "the frames of requests"])
def test_the_search_finds_a_secret_that_is_there(kind):
    """This is the control of all searches below: without the library, the secret is found."""
    session = session_with(TokenEndpoint(requests.ConnectionError("dead")))
    if kind in CHAINS:
        error = raised_by(lambda: session.request("GET", API, auth=lambda _: fail_from_one_with_a_secret(kind)))
    else:
        error = raised_by(lambda: session.post(API, json={"client_secret": SECRET}))
    with pytest.raises(AssertionError, match=r"held|json"):
        assert_clean(error)


def chained(_, request, **__):
    """Raise an error from others that have the request; the chain has no end, and Python prints such a one too."""
    error = LookupError("of the caller's own")
    cause = requests.Timeout(request=request)
    cause.__context__ = requests.ConnectionError(request=request)
    cause.__context__.__cause__ = error
    raise error from cause


BROKEN_OFF = b'{"access_token": "token-7", ' * 9
ADAPTER = "requests.adapters.HTTPAdapter.send"
CONNECT = "urllib3.connection.HTTPConnection.connect"
FAILURES = {  # what breaks, and how; a function by its name, which lies below the frames that hold the body
    "refused": ("urllib3.util.connection.create_connection", ConnectionRefusedError),
    "reset": ("answer", Answer(fault="reset")),
    "read timeout": ("http.client.HTTPConnection.getresponse", TimeoutError),
    "TLS": (CONNECT, ssl.SSLCertVerificationError),
    "no proxy": (CONNECT, urllib3.exceptions.ProxyError("no proxy", OSError())),
    "token that breaks off": ("answer", Answer(200, BROKEN_OFF, fault="close", within="body")),
    "token in chunks that breaks off": ("answer", Answer(200, BROKEN_OFF, chunked=True, fault="reset", within="body")),
    "refusal that breaks off": ("answer", lambda request: Answer(401, request.body * 9, fault="close", within="body")),
    "400 that echoes": ("answer", lambda request: Answer(400, json.dumps({"message": request.body.decode()}).encode())),
    "403 that echoes": ("answer", lambda request: Answer(403, request.body)),
    "429 that names a time": ("answer", lambda request: Answer(429, request.body, {"Retry-After": "3600"})),
    "redirect that echoes": ("answer", lambda request: Answer(307, request.body, {"Location": f"/?{request.body!r}"})),
    "no JSON": ("answer", lambda request: Answer(200, BROKEN_OFF + request.body)),
    "message instead of a token": ("answer", Answer(200, json.dumps({"message": SECRET}).encode())),
    "too large": ("answer", Answer(200, (BROKEN_OFF + SECRET.encode()) * 300)),
    "compressed": ("answer", Answer(200, b"token-7", {"Content-Encoding": "gzip"})),
    "token with a line break": ("answer", token_answer("token-7\r\nX: y")),
    "token of another type": ("answer", token_answer("token-7", token_type="mac", message="token-7")),
    "token that is not text": ("answer", token_answer(["token-7"], message="token-7")),
    "token that has expired": ("answer", token_answer("token-7", expires_in=0)),
    **{f"members {odd}": (ADAPTER, type("Odd", (RuntimeError,), {"exceptions": odd})) for odd in (None, ("odd",))},
    "interrupt in an adapter": (ADAPTER, KeyboardInterrupt),
    "chain of errors": (ADAPTER, chained),
    "provider's frame": ("provider", fail_with_a_secret),
    **{f"provider's {kind}": ("provider", functools.partial(fail_from_one_with_a_secret, kind)) for kind in CHAINS},
    "provider of a triple": ("provider", lambda: ("an-id", SECRET, SECRET)),
    "provider of a dict": ("provider", lambda: {"client_secret": SECRET}),
    "store that exits": ("store", ("write",)),  # its frames hold the token that it is to keep
}


def enter(by, auth, breaks):
    """Ask for a token by one of the public entries, once token requests are broken."""
    url = f"{auth.environment.base_url}/api"
    if by == "the 401 hook":  # nothing breaks before the API answers
        return session_with(TokenEndpoint(lambda: breaks() or Fields(401))).get(url, auth=auth)
    refused = auth.access_token() if by == "a refused token" else None
    breaks()
    if by == "a request":
        return session_with(TokenEndpoint()).get(url, auth=auth)
    return auth.claims() if by == "claims" else auth.access_token(refused=refused)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)  # leaves out the waits between two tries
    with Loopback(token_answer("token-1")) as server:
        yield server


@pytest.mark.parametrize("by", ["a request", "the 401 hook", "access_token", "a refused token", "claims"])
@pytest.mark.parametrize("failure", FAILURES)
def test_no_failure_shows_the_secret_or_a_token(*, server, monkeypatch, caplog, failure, by):
    """No local variable of a frame does, no text, no attribute, nothing that is attached, no pickle, no log line."""
    caplog.set_level(logging.DEBUG)
    part, how = FAILURES[failure]
    provider = mock.Mock(return_value=("an-id", SECRET))
    store = Failing(SystemExit())
    options = {"environment": server.url, "store": store}
    auth = auth_of(provider, **options) if part == "provider" else MentionMeAuth("an-id", SECRET, **options)

    def breaks():
        if part == "answer":
            server.play(how)
        elif part == "provider":
            provider.side_effect = how
        elif part == "store":
            store.methods = how
        else:
            monkeypatch.setattr(part, how if isinstance(how, FunctionType) else mock.Mock(side_effect=how))

    error = raised_by(lambda: enter(by, auth, breaks))
    assert len(frames_of(error)) > 3  # down to where it went wrong
    assert_clean(error)
    assert not leaks(caplog.text)
    assert not isinstance(error, TokenResponseError) or error.response is None  # it would hold the answer


@pytest.mark.parametrize("fault", [urllib3.exceptions.ProtocolError("reset"), KeyboardInterrupt(), SystemExit(1)])
def test_a_retry_that_fails_does_not_show_its_token(server, monkeypatch, fault):
    """The frames of `urllib3` hold its headers."""
    urlopen = urllib3.HTTPConnectionPool.urlopen

    def failing(pool, method, url, body=None, headers=None, **options):
        if headers.get("Authorization") == "Bearer token-2":
            raise fault
        return urlopen(pool, method, url, body, headers, **options)

    server.play(token_answer("token-1"), Answer(401), token_answer("token-2"))
    monkeypatch.setattr("urllib3.HTTPConnectionPool.urlopen", failing)
    auth = MentionMeAuth("an-id", SECRET, environment=server.url)
    error = raised_by(lambda: requests.get(f"{server.url}/api", auth=auth))
    assert fault in chain_of(error)
    assert_frames_are_clean(error)


def test_waiters_and_those_who_come_later_raise_clean_copies_of_an_error(crowd, clock):
    """Each waiter has its own; the error of a named time is raised again until that time is over."""
    gate = Gate(Fields(429, {"message": SECRET}, {"Retry-After": "50"}))
    endpoint = TokenEndpoint(gate)
    auth = auth_with(endpoint)
    asked = crowd.wait_behind(gate, 3, auth.access_token)
    gate.open()
    errors = [each.exception(LONG) for each in asked]
    errors += [raised_by(auth.access_token), raised_by(lambda: session_with(endpoint).get(API, auth=auth))]
    assert (endpoint.count, len({id(error) for error in errors})) == (1, 6)
    for error in errors:
        assert_clean(error)


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), SystemExit(1), RuntimeError("a bug")], ids=repr)
def test_what_a_stale_try_or_an_invalidate_raises_is_clean(clock, fault):
    """A try raises what is the leader's own while the token in hand lives, too. A store holds the token to remove."""
    auth = auth_with(TokenEndpoint("token-1", fault))
    auth.access_token()
    clock.tick(STALE)
    stale = raised_by(lambda: session_with(TokenEndpoint()).get(API, auth=auth))
    store = Failing(KeyboardInterrupt())
    auth = auth_with(TokenEndpoint(), store=store)
    auth.access_token()
    store.methods = ("read", "remove")
    interrupt = raised_by(lambda: auth.invalidate("token-1"))
    assert (stale, interrupt) == (fault, store.error)
    assert_clean(stale)
    assert_clean(interrupt)


def test_a_warning_does_not_show_what_the_endpoint_echoed(clock, caplog):
    """Neither that of a stale try, nor that of a 401 that can't be retried; nor does a record bring frames along."""
    echo = Fields(404, {"message": SECRET})
    auth = auth_with(TokenEndpoint("token-1", echo, echo))
    auth.access_token()
    clock.tick(STALE)
    auth.access_token()
    session_with(TokenEndpoint(Fields(401))).post(API, data=iter([b""]), auth=auth)
    assert [(record.exc_info, "[secret]" in record.getMessage()) for record in caplog.records] == [(None, True)] * 2
    assert SECRET not in str([vars(record) for record in caplog.records])


PARTIAL = functools.partial(dict, client_secret=SECRET)  # its `repr` shows its arguments
FOREIGN = f"https://user:{SECRET}@host"
auth_of = functools.partial(MentionMeAuth.from_provider, environment="demo")
WRONG = [
    *({"environment": it} for it in ("staging", None, FOREIGN)),
    *({"timeout": it} for it in ("5", None, -1, (5, 10, 15))),
    *({"refresh_margin": it} for it in ("5", None, -1)),
    *({"store": it} for it in ([], "file.json")),
    {"session": requests},
]
REFUSED = [
    *(functools.partial(MentionMeAuth, "an-id", SECRET, **options) for options in WRONG),
    functools.partial(MentionMeAuth, "", "another", store={"key": SECRET}),
    *(functools.partial(MentionMeAuth, *pair) for pair in (("", SECRET), ("i", SECRET.encode()), ("i", [SECRET]))),
    *(functools.partial(MentionMeAuth.from_env, **options) for options in ({"timeout": "5"}, {"environment": FOREIGN})),
    functools.partial(auth_of, ("an-id", SECRET)),
    functools.partial(auth_of, PARTIAL, timeout="5"),
    lambda: auth_of(PARTIAL).access_token(),
]


@pytest.mark.parametrize("refused", REFUSED, ids=lambda it: f"{getattr(it, 'args', '')} {getattr(it, 'keywords', '')}")
def test_what_refuses_an_argument_does_not_show_the_secret(monkeypatch, refused):
    """Whichever argument is wrong, whatever it holds, and whatever its `repr` shows."""
    monkeypatch.setenv("MENTIONME_CLIENT_ID", "an-id")
    monkeypatch.setenv("MENTIONME_CLIENT_SECRET", SECRET)
    error = raised_by(refused)
    assert isinstance(error, TypeError | ValueError)
    assert "<hidden>" in str([frame.locals for frame in frames_of(error)])
    assert_clean(error)


@pytest.mark.parametrize("raised_again", [False, True], ids=["another error", "the very same error"])
def test_what_the_caller_was_handling_keeps_its_locals(*, raised_again):
    """Its frames and those of its cause are the caller's to show, secret or not, also where a provider raises it."""
    try:
        fail_from_one_with_a_secret("cause")
    except ValueError as error:
        handled = error
        provider = mock.Mock(side_effect=handled if raised_again else OSError("no key"))
        assert (raised_by(auth_of(provider).access_token) is handled) is raised_again
    last = [list(traceback.walk_tb(error.__traceback__))[-1][0] for error in (handled, handled.__cause__)]
    assert [frame.f_locals for frame in last] == [{"kind": "cause"}, {"held": {"client_secret": SECRET}}]


def generator(kept):
    with pytest.raises(LookupError) as kept["raised"]:
        fail_with_a_secret()
    yield


async def coroutine(kept):
    with pytest.raises(LookupError) as kept["raised"]:
        fail_with_a_secret()
    await asyncio.sleep(0)


async def async_generator(kept):
    with pytest.raises(LookupError) as kept["raised"]:
        fail_with_a_secret()
    yield


@pytest.mark.parametrize(("function", "frame"), [(generator, "gi"), (coroutine, "cr"), (async_generator, "ag")])
def test_what_is_paused_survives_that_a_provider_raises_its_stored_error(function, frame):
    """To clear the frame of a generator that is only suspended would end it, before Python 3.13."""
    kept = {}
    running = function(kept)
    step = running.asend(None) if hasattr(running, "asend") else running
    with suppress(StopIteration):  # how the step of an async generator ends
        step.send(None)
    before = getattr(running, f"{frame}_frame")
    error = kept["raised"].value
    assert raised_by(auth_of(mock.Mock(side_effect=error)).access_token) is error
    assert getattr(running, f"{frame}_frame") is before is not None


GENERATORS = {  # the package of a generator that holds the secret or the token of an answer for a while
    "requests_mentionme": Answer(401, b'{"error": "no_client"}'),  # the secret is searched for
    "requests": token_answer("token-1"),  # a body that a hook has read is handed out once more
    "urllib3": token_answer("token-1"),
    "email": Answer(401, headers={"X-Echo": SECRET}),
}


@pytest.mark.parametrize("package", GENERATORS)
def test_a_generator_that_nobody_resumes_is_cleared_where_an_interrupt_ends_it(package):
    def interrupt(frame, event, _):
        is_generator = event == "c_return" and frame.f_code.co_flags & inspect.CO_GENERATOR
        is_of_package = frame.f_globals["__name__"].partition(".")[0] == package
        if is_generator and is_of_package and leaks(str(frame.f_locals)):
            sys.setprofile(None)
            raise KeyboardInterrupt

    def read(response, **_):
        assert response.content

    with Loopback(GENERATORS[package]) as server, requests.Session() as session:
        session.hooks["response"].append(read)
        auth = MentionMeAuth("an-id", SECRET, environment=server.url, session=session)
        sys.setprofile(interrupt)
        error = raised_by(auth.access_token)
        sys.setprofile(None)
    assert isinstance(error, KeyboardInterrupt)
    assert_frames_are_clean(error)


def test_before_python_3_13_alone_a_generator_that_has_failed_keeps_its_locals():
    def failing():
        held = SECRET
        yield fail_with_a_secret(), held

    error = raised_by(auth_of(lambda: next(failing())).access_token)
    assert any(leaks(str(frame.locals)) for frame in frames_of(error)) is (sys.version_info < (3, 13))


def test_the_request_that_a_hook_holds_stays_whole():
    """Redaction makes a copy: what a lent session still works with is as it was."""
    held = []
    session = session_with(TokenEndpoint(Fields(401)))
    session.hooks["response"].append(lambda response, **_: held.append(response.request))
    assert_clean(raised_by(MentionMeAuth("an-id", SECRET, environment="demo", session=session).access_token))
    assert json.loads(held[0].body or "")["client_secret"] == SECRET


def refusal(secret, status, body="", headers=None, reason="Odd"):
    raw = urllib3.HTTPResponse(io.BytesIO(body.encode()), headers, status, reason=reason, preload_content=False)
    adapter = requests.adapters.HTTPAdapter()
    session = session_with(mock.Mock(send=lambda request, **_: adapter.build_response(request, raw)))
    return raised_by(MentionMeAuth("an-id", secret, environment="demo", session=session).access_token)


SPELLINGS = [
    str,
    lambda s: json.dumps(s)[1:-1],
    lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
    lambda s: json.dumps(s)[1:-1].replace("/", r"\/"),
    lambda s: re.sub("(?<=u)[0-9a-f]{4}", lambda it: it[0].upper(), json.dumps(s)[1:-1]),
    lambda s: json.dumps(json.dumps(s)[1:-1])[1:-1],
    lambda s: quote(s, ""),
    lambda s: re.sub("%..", lambda it: it[0].lower(), quote(s, "")),
    quote,
]
ECHOES = {
    "a message": lambda echo: (401, f'{{"message": "{echo}"}}'),
    "a description": lambda echo: (400, f'{{"error": "invalid_client", "error_description": "It was {echo}."}}'),
    "another field": lambda echo: (403, f'{{"message": "No.", "request": {{"client_secret": "{echo}"}}}}'),
    "a text": lambda echo: (404, f"<p>{echo}</p>"),
    "a redirect": lambda echo: (302, echo, {"Location": f"/?secret={echo}"}),
    "a header": lambda echo: (401, "", {"WWW-Authenticate": f'Bearer error_description="{echo}"'}),
    "a cookie": lambda echo: (401, "", {"Set-Cookie": f"echo={echo}"}),
    "the reason": lambda echo: (401, "", {}, echo),
}
SECRETS = ["cs_plain", 'cs_a"b\\c/d+=%', "cs_clé_ключ", "a.b*c [x] y", "\\" * 9 + "x", "\\" * 3 + "ü" + "\\" * 8]


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_a_secret_that_is_echoed_is_shown_nowhere(echo):
    """Not by the error, its response or request, or a pickle of it, in no spelling, of whatever the secret is made."""
    for secret in SECRETS:
        spellings = [spell(secret) for spell in (*SPELLINGS, str.upper)]
        for spelling in spellings:
            told = told_by(refusal(secret, *echo(spelling)))
            assert "[secret]" in told
            assert [it for it in spellings if it in told or repr(it)[1:-1] in told] == []


@settings(max_examples=30, derandomize=True, deadline=None)
@example(secret="a\b\f\n\r\t\\")
@given(secret=st.text(st.characters(exclude_characters="[secrt]%"), min_size=1))
def test_any_secret_is_replaced_as_a_whole(secret):
    for spell in SPELLINGS:
        assert refusal(secret, 404, f"[{spell(secret)}]").response.content == b"[[secret]]"


@pytest.mark.parametrize("secret", ["\\" * 20 + "x", "\\" * 8, r"\a\a\a", "%%%%a"])
def test_the_secret_is_searched_in_linear_time(secret):
    """An answer may be made to waste time: nearly the secret, over and over, takes no longer than a moment."""
    for text in ("\\" * 3_000, "\\" * 30_000, r"\a" * 15_000):  # the first fails soon where others take for ever
        begun = time.thread_time()
        refusal(secret, 404, text)
        assert time.thread_time() - begun < 2


def test_no_object_shows_the_secret_or_a_token():
    """Neither the auth nor a part of it, with a token and a hold-off; a half-built one has a `repr`."""
    auth = auth_with(TokenEndpoint())
    session_with(TokenEndpoint(Fields(401), Fields(401))).get(API, auth=auth)
    found = [auth]
    for each in found:
        for held in gc.get_referents(each):
            is_of_it = isinstance(held, dict | list | tuple) or "requests_mentionme" in type(held).__module__
            if is_of_it and not any(held is other for other in found):
                found.append(held)
    parts = [each for each in found if "requests_mentionme" in type(each).__module__]
    assert len(parts) >= 5
    assert "<ClientCredentials>" in map(repr, parts)
    assert not leaks(f"{parts!r} {[str(part) for part in parts]} {vars(auth)}")
    assert "MentionMeAuth" in repr(MentionMeAuth.__new__(MentionMeAuth))
