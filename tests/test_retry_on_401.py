"""The 401 rule: what a refused token leads to, hold-offs, the one hook, and how a request is sent again.

Token requests go to the endpoint in memory, and other requests to `responses`. Bodies, drains and the reuse of
connections are tested at a server on a loopback port, since a mock has none of them.
"""

import copy
import io
import logging
import os
import pickle
import re
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
import requests
from in_memory import (
    API,
    EXPIRED,
    LONG,
    SIBLING,
    STALE,
    Answer,
    Gate,
    TokenEndpoint,
    accept,
    auth_with,
    sent,
    session_with,
    warnings,
)
from loopback import Answer as WireAnswer
from loopback import Loopback

from requests_mentionme import InvalidClientError, TokenEndpointError


@pytest.fixture
def auth(endpoint):
    """An auth for the demo environment; it takes the place of the one for the sandbox."""
    return auth_with(endpoint)


def early_request(auth, url=API):
    """Return a request that carries today's token, to be sent later."""
    return requests.Request("GET", url, auth=auth).prepare()


def send(request):
    """Send a prepared request, and return its response."""
    with requests.Session() as session:
        return session.send(request)


def test_a_401_is_retried_once_with_a_new_token(web, auth, endpoint, caplog):
    """The caller sees the second answer, with the request that it answers and with the 401 in its history."""
    caplog.set_level(logging.INFO)
    accept(web, "token-2")
    response = requests.post(API, json={"a": 1}, auth=auth)
    assert (response.status_code, response.text) == (200, "fine")
    assert [(past.status_code, past.text) for past in response.history] == [(401, "refused")]
    assert response.request.headers["Authorization"] == "Bearer token-2"
    assert response.history[0].request.headers["Authorization"] == "Bearer token-1"
    assert [call.request.body for call in web.calls] == [b'{"a": 1}'] * 2
    assert endpoint.count == 2
    assert {(record.name, record.levelname) for record in caplog.records} == {("requests_mentionme", "INFO")}
    obtained, again, retried = [record.getMessage() for record in caplog.records]
    for said in (obtained, again):
        assert re.search(r"obtained.*demo.*1000 s", said)
    assert re.search(r"refused.*https://demo\.mention-me\.com.*retr", retried)
    assert "customers" not in retried


@pytest.mark.parametrize("status", [200, 400, 403, 404, 429, 500])
def test_only_a_401_is_retried(web, auth, status):
    """Any other status means that the token was accepted."""
    web.get(API, status=status)
    assert requests.get(API, auth=auth).status_code == status
    assert sent(web) == ["token-1"]


@pytest.mark.parametrize(
    ("header", "token_requests"),
    [("Bearer token-1", 2), (b"Bearer token-1", 2), ("Basic bmV0cmM6cHc=", 1), (None, 1)],
    ids=["str", "bytes", "replaced", "removed"],
)
def test_the_refused_token_is_read_from_the_request_itself(web, auth, endpoint, *, header, token_requests):
    """So a request can be prepared early, and sent by any thread, any number of times, with one renewal in all."""
    request = early_request(auth)
    request.headers["Authorization"] = header
    if header is None:
        del request.headers["Authorization"]
    accept(web, f"token-{token_requests}")
    assert [send(request).status_code for _ in range(3)] == [200, 200, 200]
    assert len(web.calls) == 6
    assert endpoint.count == token_requests


@pytest.mark.parametrize("state", ["stale", "expired", "invalidated"])
def test_a_late_401_uses_a_stale_token_and_renews_where_there_is_no_live_one(clock, web, auth, endpoint, state):
    """One token request in any case: a stale token is renewed by the next request, not for an older one's sake."""
    request = early_request(auth)
    if state != "expired":
        auth.invalidate()
    if state == "stale":
        auth.access_token()
    clock.tick({"stale": STALE + 1, "expired": EXPIRED, "invalidated": 0}[state])
    accept(web, "token-2")
    assert send(request).status_code == 200
    assert endpoint.count == 2
    assert auth.access_token() == ("token-3" if state == "stale" else "token-2")


@pytest.mark.parametrize(
    ("failure", "error", "wait"),
    [(Answer(401), InvalidClientError, 0), (Answer(429, headers={"Retry-After": "50"}), TokenEndpointError, 50)],
    ids=["refused credentials", "a time is named"],
)
def test_a_failed_renewal_is_raised_in_place_of_the_401_and_the_refused_token_stays(
    clock, web, auth, endpoint, *, failure, error, wait
):
    """What needs no other token goes on: requests that are accepted, and late 401s for an older token."""
    late = early_request(auth, SIBLING)
    auth.invalidate()
    auth.access_token()
    accept(web, "token-4")
    accept(web, "token-2", url=SIBLING)
    endpoint.script = [failure]
    for _ in range(2 if wait else 1):
        with pytest.raises(error):
            requests.get(API, auth=auth)
    assert requests.get(SIBLING, auth=auth).status_code == 200
    assert send(late).status_code == 200
    assert endpoint.count == 3
    clock.tick(wait + 0.1 if wait else 0)
    assert requests.get(API, auth=auth).status_code == 200


@pytest.mark.parametrize(
    ("script", "body", "what", "expected"),
    [
        ((), None, "refused", ["token-1", "token-2", "token-2", "token-2", "token-3"]),
        (("opaque",) * 3, None, "very token", ["opaque"] * 3),
        (("opaque",) * 3, iter, "very token", ["opaque"] * 3),
    ],
    ids=["another token", "the very same", "the very same, and no retry possible"],
)
def test_a_renewal_that_does_not_help_is_one_warning_and_401s_are_passed_on_for_30_s(
    clock, web, caplog, *, script, body, what, expected
):
    """A missing permission, or a server that caches tokens, costs one renewal in 30 s, not one for each call."""
    caplog.set_level(logging.INFO)
    accept(web)
    endpoint = TokenEndpoint(*script)
    auth = auth_with(endpoint)
    for pause, renewals in ((0, 1), (29.9, 1), (0.2, 2)):
        clock.tick(pause)
        response = requests.post(API, data=body and body([b"data"]), auth=auth)
        assert (response.status_code, response.text) == (401, "refused")
        assert endpoint.count == 1 + renewals
        assert len(warnings(caplog)) == renewals
    assert sent(web) == expected
    for said in warnings(caplog):
        assert re.search(f"{what}.*Check.*30 s", said)
        assert not any(token in said for token in expected)
    assert "401 of https://demo.mention-me.com passed on: a new token has not helped lately" in caplog.messages


def test_a_late_401_for_an_older_token_is_retried_during_a_hold_off_and_begins_none(web, auth, endpoint, caplog):
    """What is held off is renewal for one token. Only one straight from the endpoint proves that another won't do."""
    early = [early_request(auth), early_request(auth, SIBLING)]
    auth.invalidate()
    auth.access_token()
    accept(web)
    assert send(early[0]).status_code == 401
    assert endpoint.count == 2
    assert warnings(caplog) == []
    assert requests.get(API, auth=auth).status_code == 401
    assert endpoint.count == 3
    assert len(warnings(caplog)) == 1
    accept(web, "token-3", url=SIBLING)
    assert send(early[1]).status_code == 200
    assert endpoint.count == 3


@pytest.mark.parametrize(("third", "status"), [("token-3", 200), ("token-2", 401)], ids=["another", "the same"])
def test_a_hold_off_is_for_one_token_by_its_value(clock, web, third, status):
    """A token obtained since is not held off, and the held one is if it comes again."""
    auth = auth_with(TokenEndpoint("token-1", "token-2", third, "new", lifetime=20))
    accept(web, "new")
    assert requests.get(API, auth=auth).status_code == 401
    clock.tick(19.5)
    assert requests.get(API, auth=auth).status_code == status


def test_access_token_gives_another_token_for_a_refused_one(auth, endpoint, caplog):
    """If it is the current one it is renewed; if someone renewed it already, that costs no token request.

    It raises what the renewal raised, and the refused token stays current until there is another.
    """
    endpoint.script = ["token-1", Answer(404)]
    auth.access_token()
    with pytest.raises(TokenEndpointError, match="404"):
        auth.access_token(refused="token-1")
    assert auth.access_token() == "token-1"
    assert [auth.access_token(refused=old) for old in ("token-1", "token-1", "never seen", None)] == ["token-3"] * 4
    assert endpoint.count == 3
    assert warnings(caplog) == []


def test_a_refused_token_is_a_string(auth, endpoint):
    """Of another type it could not be the one in hand, and would be answered with the very token that was refused."""
    with pytest.raises(TypeError, match="refused must be the token that was refused, as a string"):
        auth.access_token(refused=b"token-1")
    assert endpoint.count == 0


@pytest.mark.parametrize("first", ["token-2", "token-1"], ids=["new", "same"])
def test_access_token_returns_a_token_that_is_refused_at_once_again_for_30_s(clock, auth, endpoint, caplog, first):
    """One warning, no token request: what replaced a refused token and is refused itself is not the problem."""
    endpoint.script = ["token-1", first]
    assert auth.access_token(refused=auth.access_token()) == first
    for pause in (0, 29.9):
        clock.tick(pause)
        assert auth.access_token(refused=first) == first
    assert endpoint.count == 2
    (said,) = warnings(caplog)
    assert re.search("refused.*Check.*30 s", said)
    assert first not in said
    clock.tick(0.2)
    assert auth.access_token(refused=first) == "token-3"


def test_a_token_that_has_expired_is_not_returned_because_it_is_held_off(clock, auth, endpoint):
    """It would be refused for another reason."""
    endpoint.script = ["same", "same"]
    endpoint.lifetime = 20.0
    assert auth.access_token(refused=auth.access_token()) == "same"
    clock.tick(19)
    assert auth.access_token(refused="same") == "token-3"


def test_a_hold_off_is_one_for_the_adapter_and_for_access_token(clock, web, auth, endpoint, caplog):
    """And there is none of a token that was good for 30 s: it was revoked in its turn, and the next one may do."""
    accept(web)
    assert requests.get(API, auth=auth).status_code == 401
    assert auth.access_token(refused="token-2") == "token-2"
    assert endpoint.count == 2
    assert len(warnings(caplog)) == 1
    auth.invalidate()
    assert auth.access_token(refused="token-2") == "token-3"
    clock.tick(30.1)
    assert auth.access_token(refused="token-3") == "token-4"
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("way", ["adapter", "access_token"])
@pytest.mark.parametrize("new", ["token-2", "token-1"], ids=["another", "the very same"])
def test_64_threads_with_one_refused_token_make_one_token_request(web, auth, endpoint, crowd, caplog, *, way, new):
    """They wait for one renewal, and share it and its warning; other requests go on with the token in hand."""
    gate = Gate(new)
    endpoint.script = ["token-1", gate]
    accept(web, "token-2")
    request = early_request(auth)

    def call():
        return send(request.copy()).status_code if way == "adapter" else auth.access_token(refused="token-1")

    calls = crowd.wait_behind(gate, 63, call)
    assert auth.access_token() == "token-1"
    gate.open()
    expected = new if way == "access_token" else {"token-2": 200, "token-1": 401}[new]
    assert {each.result(LONG) for each in calls} == {expected}
    assert endpoint.count == 2
    assert len(warnings(caplog)) == (new == "token-1")


@pytest.fixture
def merchants(web):
    """Two merchants, a and b, whose first tokens are refused and whose second ones are accepted."""
    accept(web, "a-2", "b-2")
    return [auth_with(TokenEndpoint(f"{name}-1", f"{name}-2")) for name in "ab"]


def note_status(response, **_):
    """Be a hook of the caller's that fails where it sees a 401."""
    response.raise_for_status()
    response.headers["Seen"] = response.headers.get("Seen", "") + "!"


def test_copies_of_one_template_are_healed_each_as_its_own_merchant(web, merchants):
    """Copies share the dict and list of hooks, and a request healed with another's token would run as the other."""
    template = requests.Request("GET", API).prepare()
    for auth in merchants:
        assert send(auth(template.copy())).status_code == 200
    assert send(template).status_code == 401
    assert sent(web) == ["a-1", "a-2", "b-1", "b-2", None]


@pytest.mark.parametrize("first", ["a", "b", "aba", "a!", "ab!"])
def test_a_request_that_was_authenticated_before_is_healed_by_the_last_auth_alone(web, merchants, first):
    """One hook of ours is on it, the last one's, before the caller's own; one that was pickled (`!`) goes."""
    with requests.Session() as session:
        session.hooks["response"].append(note_status)
        request = session.prepare_request(requests.Request("GET", API))
    for step in f"{first}b":
        request = pickle.loads(pickle.dumps(request)) if step == "!" else merchants["ab".index(step)](request)
    assert request.hooks["response"][1:] == [note_status]
    assert len(request.hooks["response"]) == 2
    response = send(request)
    assert response.status_code == 200
    assert response.headers["Seen"] == "!"
    assert sent(web) == ["b-1", "b-2"]


@pytest.mark.parametrize(
    "hooks",
    [{"response": [note_status, print]}, {"response": note_status}, {"response": []}, {"response": None}, {}],
    ids=["list", "one callable", "empty list", "None", "no entry"],
)
def test_the_hook_is_put_first_into_a_dict_of_its_own(auth, hooks):
    """What was there follows in its order, and what is shared with other requests is left as it was."""
    request = requests.Request("GET", API).prepare()
    request.hooks = hooks
    before = copy.deepcopy(hooks)
    auth(request)
    there = hooks.get("response") or []
    kept = there if isinstance(there, list) else [there]
    assert hooks == before
    assert len(request.hooks["response"]) == len(kept) + 1
    assert request.hooks["response"][1:] == kept
    assert request.hooks["response"][0] not in kept


@pytest.mark.parametrize("timeout", [{"timeout": (1, 2)}, {}], ids=["a timeout", "none"])
def test_the_retry_is_sent_with_what_the_caller_asked_for(web, auth, timeout):
    """Timeout, stream, verify, cert and proxies are the caller's; where there is no timeout, none is made up."""
    accept(web, "token-2")
    asked = {"stream": True, "verify": "a-bundle", "cert": "a-cert", "proxies": {"ftp": "http://p"}, **timeout}
    with requests.Session() as session:
        session.send(early_request(auth), **asked)
    assert [call.request.req_kwargs for call in web.calls] == [asked, asked]


def test_elapsed_is_that_of_the_retrys_own_exchange(clock, web, auth, endpoint):
    """Neither that of the refused request nor the time of the renewal."""

    def after(seconds, outcome):
        return lambda *_: [clock.tick(seconds), outcome][1]

    endpoint.script = ["token-1", after(7, "token-2")]
    web.add_callback("GET", API, after(5, (401, {}, "")))
    web.add_callback("GET", API, after(2, (200, {}, "")))
    response = requests.get(API, auth=auth)
    assert response.elapsed == timedelta(seconds=2)
    assert response.history[0].elapsed == timedelta(seconds=5)


class OddApi(TokenEndpoint):
    """An API that answers 401, then 200, with responses that *finish* changes, as a cache or a recorder does."""

    def __init__(self, finish):
        super().__init__(Answer(401), Answer(200))
        self.finish = finish

    def send(self, request, *_, **__):
        """Answer from memory, with the first request on each response."""
        response = super().send(request)
        response.request = self.requests[0]
        self.finish(response)
        return response


def test_the_retried_response_has_the_request_that_was_sent_and_keeps_the_history_that_it_brings(auth):
    """An adapter may leave an older request on its response, and may have followed a redirect itself."""
    redirect = requests.Response()
    redirect.status_code = 302
    api = OddApi(lambda response: response.history.extend([redirect] if response.status_code == 200 else []))
    with session_with(api) as session:
        response = session.get(API, auth=auth)
    assert response.request is api.requests[1]
    assert response.request.headers["Authorization"] == "Bearer token-2"
    assert sorted(past.status_code for past in response.history) == [302, 401]


@pytest.mark.parametrize(
    "parts",
    [{"connection": None}, {"connection": ...}, {"raw": None}, {"raw": None, "_content": b"made"}],
    ids=["connection of None", "no connection", "no raw", "content made by hand"],
)
def test_a_401_that_came_by_no_connection_is_returned_as_it_is(auth, endpoint, caplog, parts):
    """It comes from a cache or was made by hand: it can't be retried, and is no news of the token."""

    def finish(response):
        vars(response).update(parts)
        if response.connection is ...:
            del response.connection

    api = OddApi(finish)
    with session_with(api) as session:
        response = session.get(API, auth=auth, stream=True)
    assert (response.status_code, response.history) == (401, [])
    assert response.raw is None or response.raw.tell() == 0
    assert api.count == 1
    assert endpoint.count == 1
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("in_jar", "header", "expected"),
    [(None, None, [None, "node=7"]), ("1", None, ["mine=1", "mine=1; node=7"])]
    + [(in_jar, "a=1", ["a=1", "a=1"]) for in_jar in (None, "1")],
    ids=["none yet", "in the jar", "a header of the caller's", "both"],
)
def test_cookies_of_the_401_go_out_with_the_retry_and_stay_in_the_session(web, auth, in_jar, header, expected):
    """As a load balancer wants that pins a client; a caller's own header goes before, as in `requests`."""
    web.get(API, status=401, headers={"Set-Cookie": "node=7; Path=/"})
    web.get(API)
    with requests.Session() as session:
        if in_jar:
            session.cookies.set("mine", in_jar, domain="demo.mention-me.com")
        session.get(API, auth=auth, headers={"Cookie": header})
        assert session.cookies.get("node") == "7"
    assert [call.request.headers.get("Cookie") for call in web.calls] == expected


def test_a_request_without_a_cookie_jar_is_retried_all_the_same(web, auth):
    """A request that was prepared by hand, part by part, may have no jar."""
    accept(web, "token-2")
    request = requests.PreparedRequest()
    request.prepare_method("GET")
    request.prepare_url(API, None)
    request.prepare_headers(None)
    assert send(auth(request)).status_code == 200


class Body(io.BytesIO):
    """A file whose methods a test can replace."""

    def __init__(self, **methods):
        super().__init__(b"data")
        vars(self).update(methods)


def fail(*_):
    """Be a method of a body that can't do what is asked."""
    raise io.UnsupportedOperation


class BodyThatClosesItself(Body):
    """A body that is closed once it was read, as by a caller who is quick to tidy up."""

    def read(self, size=-1):
        """Read, and close at the end."""
        data = super().read(size)
        if not data:
            self.close()
        return data


def not_iterable():
    """Return a body that `requests` does not take for a file, though it can be read."""
    file = io.BytesIO(b"data")
    return SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell, len=4)


def at_offset():
    """Return a body of which the first part is not to be sent."""
    body = io.BytesIO(b"skip:data")
    body.seek(5)
    return body


def pipe():
    """Return the reading end of a pipe."""
    reading, writing = os.pipe()
    os.write(writing, b"data")
    os.close(writing)
    return os.fdopen(reading, "rb")


@pytest.fixture
def server():
    """An API that refuses one request and accepts all others."""
    with Loopback(WireAnswer(401, b"refused"), WireAnswer(body=b"fine")) as running:
        yield running


def posted(server):
    """Return the bodies that a server got, with their tokens."""
    return [(request.headers["authorization"].removeprefix("Bearer "), request.body) for request in server.requests]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        *[(lambda: None, b""), (lambda: "text", b"text"), (lambda: b"data", b"data"), (lambda: {"a": "1"}, b"a=1")],
        (lambda: io.BytesIO(b"x" * 300_000), b"x" * 300_000),
        (at_offset, b"data"),
    ],
    ids=["no body", "str", "bytes", "form", "large file", "file at an offset"],
)
def test_a_body_that_can_be_sent_again_is(server, endpoint, make, expected):
    """The retry carries the whole body, from where it started."""
    response = requests.post(server.url, data=make(), auth=auth_with(endpoint, environment=server.url), timeout=5)
    assert response.text == "fine"
    assert posted(server) == [("token-1", expected), ("token-2", expected)]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: iter([b"da", b"ta"]), id="generator"),
        pytest.param(lambda: bytearray(b"data"), id="bytearray"),
        pytest.param(lambda: Body(tell=fail), id="no tell"),
        pytest.param(lambda: Body(seek=fail), id="no way back"),
        *[BodyThatClosesItself, not_iterable, pipe],
    ],
)
def test_a_body_that_cannot_be_sent_again_gets_its_401_and_the_token_is_renewed(server, endpoint, caplog, make):
    """The 401 is returned unread, nothing is sent twice or empty, and the caller's own next try works."""
    caplog.set_level(logging.INFO)
    auth = auth_with(endpoint, environment=server.url)
    first = make()
    second = make()
    response = requests.post(server.url, data=first, auth=auth, stream=True, timeout=5)
    assert (response.status_code, response.history) == (401, [])
    assert response.raw.tell() == 0
    assert response.text == "refused"
    assert endpoint.count == 2
    assert caplog.messages[-1] == f"401 of {server.url} passed on: its body can't be sent again"
    assert requests.post(server.url, data=second, auth=auth, timeout=5).text == "fine"
    assert posted(server) == [("token-1", b"data"), ("token-2", b"data")]
    assert endpoint.count == 2
    for body in (first, second):
        getattr(body, "close", bool)()


def refused_generator(failure):
    """Send a body that can't be sent again, have it refused, and fail in the renewal; return the response and auth."""
    auth = auth_with(TokenEndpoint("token-1", failure))
    return requests.post(API, data=iter([b"data"]), auth=auth), auth


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        pytest.param(requests.ReadTimeout("too slow"), "too slow", id="of requests"),
        pytest.param(OSError("no CA bundle"), "no CA bundle", id="a missing CA bundle"),
        pytest.param(Answer(401, {"message": "No such key."}), "No such key", id="refused credentials"),
    ],
)
def test_where_a_401_could_not_be_retried_a_failed_renewal_is_a_warning(web, caplog, failure, reason):
    """The caller gets the answer that there is, and the log says why the next try will not fare better."""
    accept(web)
    response, auth = refused_generator(failure)
    assert (response.status_code, response.text) == (401, "refused")
    (said,) = warnings(caplog)
    assert re.search(f"401.*{reason}", said)
    assert auth.access_token() == "token-1"


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt("Ctrl-C")], ids=repr)
def test_any_other_exception_in_that_renewal_is_raised(web, caplog, error):
    """It is no failure of the endpoint: a signal handler raised it, or it is a bug that must not be hidden."""
    accept(web)
    with pytest.raises(type(error)) as raised:
        refused_generator(error)
    assert raised.value is error
    assert warnings(caplog) == []


def test_a_401_whose_renewal_fails_gives_its_connection_back(server, endpoint):
    """The error takes the place of the 401, which is drained before."""
    endpoint.script = ["token-1", Answer(404)]
    with requests.Session() as session:
        session.auth = auth_with(endpoint, environment=server.url)
        with pytest.raises(TokenEndpointError, match="answered 404"):
            session.post(server.url, json={}, stream=True, timeout=5)
        assert session.post(server.url, json={}, timeout=5).text == "fine"
    assert server.connections == 1


class ReadsAtOnce(requests.adapters.HTTPAdapter):
    """An adapter that has read each body before the hook sees the response."""

    def send(self, *args, **options):
        """Read it, as a log of whole answers does."""
        response = super().send(*args, **options)
        assert response.content is not None
        return response


def test_a_401_that_an_adapter_has_read_keeps_its_body(endpoint):
    """It is not read again, which would find nothing."""
    with Loopback(WireAnswer(401, b"Expired."), WireAnswer(body=b"fine")) as api, requests.Session() as session:
        session.mount("http://", ReadsAtOnce())
        session.auth = auth_with(endpoint, environment=api.url)
        response = session.get(api.url, timeout=5)
        assert (response.text, response.history[0].text) == ("fine", "Expired.")


DRIP = {"fault": "drip", "within": "body"}  # which lasts for 15 s with 300 bytes
DRAINS = {  # a 401, the connections that it takes to have a retry answered, and how many bytes can be read of it
    "short": (WireAnswer(401, b"short"), 1, [5]),
    "empty": (WireAnswer(401), 1, [0]),
    "chunked": (WireAnswer(401, b"abc", chunked=True), 1, [3]),
    "slow": (WireAnswer(401, b"slow", interval=0.02, **DRIP), 1, [4]),
    "as long as can be": (WireAnswer(401, b"x" * 65_536), 1, [65_536]),
    "too long": (WireAnswer(401, b"x" * 4096, times=20), 2, range(65_537, 100_000)),
    "far too long": (WireAnswer(401, b"x" * 65_536, times=500), 2, range(65_537, 100_000)),
    "broken off": (WireAnswer(401, b"broken off", fault="close", within="body"), 2, range(10)),
    "not to be decoded": (WireAnswer(401, b"not gzip", {"Content-Encoding": "gzip"}), 1, [0]),
    "a drip with a length": (WireAnswer(401, b"x" * 300, **DRIP), 2, range(1, 300)),
    "a drip in a chunk": (WireAnswer(401, b"x" * 300, chunked=True, **DRIP), 2, range(1, 300)),
    "silence": (WireAnswer(401, b"x" * 300, fault="hang", within="body"), 2, range(300)),
}


@pytest.mark.parametrize(("refusal", "connections", "readable"), DRAINS.values(), ids=DRAINS)
def test_a_401_is_drained_if_it_is_short_and_cut_off_otherwise(endpoint, monkeypatch, refusal, connections, readable):
    """64 KiB and a second are worth a connection, and a silent one has its read timeout; the retry works in any case.

    What was read stays readable. A fast clock saves real seconds.
    """
    true_clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: 4 * true_clock())
    begin = true_clock()
    with Loopback(refusal, WireAnswer(body=b"fine")) as api, requests.Session() as session:
        session.auth = auth_with(endpoint, environment=api.url)
        response = session.get(f"{api.url}/thing", timeout=0.5 if refusal.fault == "hang" else 60)
        assert response.text == "fine"
        assert true_clock() - begin < 5
        (refused,) = response.history
        read = b"".join(refused.iter_content(5000))  # first, as `content` makes sure that this works
        assert read == refused.content
        assert len(read) in readable
        assert (refusal.body * refusal.times).startswith(read)
        assert api.connections == connections
        assert api.until(lambda: len(api.open) == 1), "the connection of the 401 was left open"
