"""The 401 rule: what a refused token leads to, hold-offs, the one hook, and how a request is sent again.

Token requests go to the endpoint in memory, and other requests to `responses`. Bodies, drains and the reuse of
connections are tested at a server on a loopback port, since a mock has none of them.
"""

import copy
import io
import logging
import os
import pickle
import time
from datetime import timedelta
from types import SimpleNamespace
from unittest import mock

import pytest
import requests
from in_memory import API, SIBLING, Answer, Gate, TokenEndpoint, accept, auth_with, sent, session_with, warnings
from loopback import Answer as WireAnswer
from loopback import Loopback

from requests_mentionme import TokenEndpointError


@pytest.fixture
def auth(endpoint):
    return auth_with(endpoint)


def early_request(auth, url=API):
    """Return a request that carries today's token, to be sent later."""
    return requests.Request("GET", url, auth=auth).prepare()


def send(request):
    with requests.Session() as session:
        return session.send(request)


def test_a_401_is_retried_once_with_a_new_token(web, auth, endpoint, caplog):
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
    obtained = "Token obtained: demo, 1000 s to live"
    assert caplog.messages == [obtained, obtained, "Token refused by https://demo.mention-me.com, retrying once"]


@pytest.mark.parametrize("status", [200, 400, 402, 403, 429, 500])
def test_only_a_401_is_retried(web, auth, status):
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


def test_a_late_401_is_retried_with_a_stale_token_which_is_renewed_by_the_next_request(clock, web, auth, endpoint):
    request = early_request(auth)
    auth.invalidate()
    auth.access_token()
    clock.tick(801)
    accept(web, "token-2")
    assert send(request).status_code == 200
    assert endpoint.count == 2
    assert auth.access_token() == "token-3"


def test_a_failed_renewal_is_raised_in_place_of_the_401_and_the_refused_token_stays(clock, web, auth, endpoint):
    """What needs no other token goes on: requests that are accepted, and late 401s for an older token."""
    late = early_request(auth, SIBLING)
    auth.invalidate()
    auth.access_token()
    accept(web, "token-4")
    accept(web, "token-2", url=SIBLING)
    endpoint.script = [Answer(429, headers={"Retry-After": "50"})]
    for _ in range(2):
        with pytest.raises(TokenEndpointError):
            requests.get(API, auth=auth)
    assert requests.get(SIBLING, auth=auth).status_code == 200
    assert send(late).status_code == 200
    assert endpoint.count == 3
    clock.tick(50.1)
    assert requests.get(API, auth=auth).status_code == 200


@pytest.mark.parametrize(
    ("script", "body", "expected"),
    [
        ((), None, ["token-1", "token-2", "token-2", "token-2", "token-3"]),
        (("opaque",) * 3, None, ["opaque"] * 3),
        (("opaque",) * 3, iter, ["opaque"] * 3),
    ],
    ids=["another token", "the very same", "the very same, and no retry possible"],
)
def test_a_renewal_that_does_not_help_is_one_warning_and_401s_are_passed_on_for_30_s(
    clock, web, caplog, *, script, body, expected
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
    assert "401 of https://demo.mention-me.com passed on: a new token has not helped lately" in caplog.messages


def test_a_late_401_for_an_older_token_is_retried_during_a_hold_off_and_begins_none(web, auth, endpoint, caplog):
    """What is held off is renewal for one token. Only one straight from the endpoint proves that another won't do."""
    early = [early_request(auth), early_request(auth, SIBLING)]
    auth.invalidate()
    auth.access_token()
    accept(web)
    assert send(early[0]).status_code == 401
    assert (endpoint.count, len(warnings(caplog))) == (2, 0)
    assert requests.get(API, auth=auth).status_code == 401
    assert (endpoint.count, len(warnings(caplog))) == (3, 1)
    accept(web, "token-3", url=SIBLING)
    assert send(early[1]).status_code == 200
    assert endpoint.count == 3


@pytest.mark.parametrize(("third", "status"), [("token-3", 200), ("token-2", 401)], ids=["another", "the same"])
def test_a_hold_off_is_for_one_token_by_its_value(clock, web, third, status):
    auth = auth_with(TokenEndpoint("token-1", "token-2", third, "new", lifetime=20))
    accept(web, "new")
    assert requests.get(API, auth=auth).status_code == 401
    early = early_request(auth)
    clock.tick(19.5)
    assert requests.get(API, auth=auth).status_code == status
    assert send(early).status_code == status


def test_access_token_gives_another_token_for_a_refused_one_or_raises_and_keeps_it(auth, endpoint, caplog):
    """If it is the current one it is renewed; if someone renewed it already, that costs no token request."""
    endpoint.script = ["token-1", Answer(404)]
    auth.access_token()
    with pytest.raises(TokenEndpointError, match="404"):
        auth.access_token(refused="token-1")
    assert auth.access_token() == "token-1"
    assert [auth.access_token(refused=old) for old in ("token-1", "token-1", "never seen", None)] == ["token-3"] * 4
    assert endpoint.count == 3
    assert warnings(caplog) == []


@pytest.mark.parametrize("first", ["token-2", "token-1"], ids=["new", "same"])
def test_access_token_returns_a_live_token_that_is_refused_at_once_again_for_30_s(clock, caplog, first):
    """One warning, no token request: what replaced a refused token and is refused itself is not the problem."""
    endpoint = TokenEndpoint("token-1", first, "short")
    auth = auth_with(endpoint)
    assert auth.access_token(refused=auth.access_token()) == first
    for pause in (0, 29.9):
        clock.tick(pause)
        assert auth.access_token(refused=first) == first
    assert (endpoint.count, len(warnings(caplog))) == (2, 1)
    clock.tick(0.2)
    endpoint.lifetime = 20
    assert auth.access_token(refused=first) == "short"
    assert auth.access_token(refused="short") == "short"
    clock.tick(19)
    assert auth.access_token(refused="short") == "token-4"


def test_a_hold_off_is_one_for_the_adapter_and_for_access_token(clock, web, auth, endpoint, caplog):
    """And there is none of a token that was good for 30 s: it was revoked in its turn, and the next one may do."""
    accept(web)
    assert requests.get(API, auth=auth).status_code == 401
    assert auth.access_token(refused="token-2") == "token-2"
    assert endpoint.count == 2
    auth.invalidate()
    assert auth.access_token(refused="token-2") == "token-3"
    clock.tick(30.1)
    assert auth.access_token(refused="token-3") == "token-4"
    assert len(warnings(caplog)) == 1


def test_64_threads_with_one_refused_token_make_one_token_request_and_one_warning(auth, endpoint, crowd, caplog):
    """Other requests go on with the token in hand. Herds of requests are in `proofs/test_races.py`."""
    gate = Gate("token-1")
    endpoint.script = ["token-1", gate]
    auth.access_token()
    calls = crowd.wait_behind(gate, 63, lambda: auth.access_token(refused="token-1"))
    assert auth.access_token() == "token-1"
    gate.open()
    assert {each.result(10) for each in calls} == {"token-1"}
    assert endpoint.count == 2
    assert len(warnings(caplog)) == 1


def test_a_request_that_waited_for_a_new_token_and_has_it_refused_holds_it_off(web, crowd):
    accept(web)
    gate = Gate()
    endpoint = TokenEndpoint("token-1", gate)
    auth = auth_with(endpoint)
    request = early_request(auth)
    crowd.ask(1, lambda: auth.access_token(refused="token-1"))
    gate.wait_until_reached()
    (waiting,) = crowd.ask(1, lambda: send(request))
    crowd.expect(1)
    gate.open()
    assert waiting.result(10).status_code == 401
    assert requests.get(API, auth=auth).status_code == 401
    assert endpoint.count == 2


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
    response = send(request)
    assert response.status_code == 200
    assert response.headers["Seen"] == "!"
    assert sent(web) == ["b-1", "b-2"]


@pytest.mark.parametrize("hooks", [{"response": note_status}, {"response": None}, {}, {"response": [note_status]}])
def test_the_hook_is_put_first_into_a_dict_of_its_own(auth, hooks):
    """Before one callable, nothing, or a list; what is shared with other requests is left as it was."""
    request = requests.Request("GET", API).prepare()
    request.hooks = hooks
    before = copy.deepcopy(hooks)
    auth(request)
    assert hooks == before
    hook, *others = request.hooks["response"]
    assert hook is not note_status
    assert others == ([note_status] if hooks.get("response") else [])


@pytest.mark.parametrize("timeout", [{"timeout": (1, 2)}, {}], ids=["a timeout", "none"])
def test_the_retry_is_sent_with_what_the_caller_asked_for(web, auth, timeout):
    """Where there is no timeout, none is made up."""
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
    """An API behind an adapter that reads each body, follows redirects, and leaves the first request on responses."""

    def send(self, request, *_, **__):
        response = super().send(request)
        response.request = self.requests[0]
        assert response.content == b"{}"
        if response.status_code == 200:
            response.history.append(mock.Mock(status_code=302, raw=None))
        return response


def test_a_retried_response_has_the_request_that_was_sent_and_adds_to_the_history_a_401_that_can_be_read(auth):
    """A body that was read is not read again, which would find nothing."""
    api = OddApi(Answer(401), Answer(200))
    response = session_with(api).get(API, auth=auth)
    assert response.request is api.requests[1]
    assert response.request.headers["Authorization"] == "Bearer token-2"
    assert [past.status_code for past in response.history] == [302, 401]
    assert response.history[1].content == b"{}"


def made_by_hand(request, **parts):
    response = requests.Response()
    raw = mock.Mock(wraps=io.BytesIO(b"refused"), closed=False)
    vars(response).update({"status_code": 401, "request": request, "raw": raw, **parts})
    return response


@pytest.mark.parametrize("parts", [{"connection": None}, {}, {"connection": TokenEndpoint(), "raw": None}])
def test_a_401_that_came_by_no_connection_is_returned_as_it_is(auth, endpoint, caplog, parts):
    """It comes from a cache or was made by hand: it can't be retried, and is no news of the token."""
    request = early_request(auth)
    response = made_by_hand(request, **parts)
    (hook,) = request.hooks["response"]
    assert hook(response) is response
    assert response.history == []
    assert response.raw is None or response.raw.read() == b"refused"
    assert endpoint.count == 1
    assert warnings(caplog) == []


def test_the_hook_returns_each_response_that_it_does_not_replace(auth, endpoint):
    """No 401, one whose renewal brings the very same token, and one that is held off; and any, once it was pickled."""
    endpoint.script = ["same", "same"]
    request = early_request(auth)
    (hook,) = request.hooks["response"]
    for called, status in ((hook, 403), (hook, 401), (hook, 401), (pickle.loads(pickle.dumps(hook)), 401)):
        response = made_by_hand(request, status_code=status, connection=TokenEndpoint())
        assert called(response) is response


@pytest.mark.parametrize(("parts", "body"), [({}, b"refused"), ({"_content_consumed": True}, b"")])
def test_a_401_that_is_not_read_by_urllib3_is_drained_byte_by_byte_unless_somebody_was_faster(auth, parts, body):
    request = early_request(auth)
    response = made_by_hand(request, connection=TokenEndpoint(), **parts)
    assert request.hooks["response"][0](response).history == [response]
    assert response.content == body
    assert {call.args for call in response.raw.read.mock_calls} == ({(1,)} if body else set())


def test_a_401_is_drained_for_a_second_at_most(clock, web, auth):
    class Drip(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            clock.tick(0.25)
            buffer[0] = ord("x")
            return 1

    web.get(API, status=401, body=io.BufferedReader(Drip()))
    web.get(API)
    assert requests.get(API, auth=auth).history[0].content == b"xxxx"


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


@pytest.mark.parametrize(("jar", "cookie"), [(None, None), ({"mine": "1"}, "mine=1")], ids=["no jar", "no header"])
def test_a_request_whose_cookies_were_taken_off_is_retried_with_what_is_in_its_jar(web, auth, jar, cookie):
    """One that was prepared by hand, part by part, may have no jar at all."""
    accept(web, "token-2")
    request = requests.Request("GET", API, cookies=jar, auth=auth).prepare()
    request.headers.pop("Cookie", None)
    if jar is None:
        request._cookies = None
    assert send(request).status_code == 200
    assert [call.request.headers.get("Cookie") for call in web.calls] == [None, cookie]


fail = mock.Mock(side_effect=io.UnsupportedOperation)


class ClosesItself(io.BytesIO):
    """A body that is closed once it was read, as by a caller who is quick to tidy up."""

    def read(self, size=-1):
        data = super().read(size)
        if not data:
            self.close()
        return data


def not_iterable():
    """Return a body that `requests` does not take for a file, though it can be read."""
    file = io.BytesIO(b"data")
    return SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell, len=4)


def at_offset():
    body = io.BytesIO(b"skip:" + b"x" * 300_000)
    body.seek(5)
    return body


def pipe():
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
        (at_offset, b"x" * 300_000),
    ],
    ids=["no body", "str", "bytes", "form", "large file at an offset"],
)
def test_a_body_that_can_be_sent_again_is_sent_from_where_it_started(server, endpoint, make, expected):
    response = requests.post(server.url, data=make(), auth=auth_with(endpoint, environment=server.url), timeout=5)
    assert response.text == "fine"
    assert posted(server) == [("token-1", expected), ("token-2", expected)]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: iter([b"da", b"ta"]), id="generator"),
        pytest.param(lambda: type("NoWayBack", (io.BytesIO,), {"seek": fail})(b"data"), id="no way back"),
        pytest.param(lambda: ClosesItself(b"data"), id="closed"),
        not_iterable,
        pipe,
    ],
)
def test_a_body_that_cannot_be_sent_again_gets_its_401_and_the_token_is_renewed(server, endpoint, caplog, make):
    """The 401 is returned unread, nothing is sent twice or empty, and the caller's own next try works."""
    caplog.set_level(logging.INFO)
    auth = auth_with(endpoint, environment=server.url)
    bodies = [make(), make()]
    response = requests.post(server.url, data=bodies[0], auth=auth, stream=True, timeout=5)
    assert (response.status_code, response.history) == (401, [])
    assert response.raw.tell() == 0
    assert response.text == "refused"
    assert endpoint.count == 2
    assert caplog.messages[-1] == f"401 of {server.url} passed on: its body can't be sent again"
    assert requests.post(server.url, data=bodies[1], auth=auth, timeout=5).text == "fine"
    assert posted(server) == [("token-1", b"data"), ("token-2", b"data")]
    assert endpoint.count == 2
    for body in bodies:
        getattr(body, "close", bool)()


def refused_generator(failure):
    """Send a body that can't be sent again, have it refused, and fail in the renewal; return the response and auth."""
    auth = auth_with(TokenEndpoint("token-1", failure))
    return requests.post(API, data=iter([b"data"]), auth=auth), auth


@pytest.mark.parametrize("failure", [OSError("No such bundle"), Answer(401, {"message": "No such key."})])
def test_where_a_401_could_not_be_retried_a_failed_renewal_is_a_warning(web, caplog, failure):
    """The caller gets the answer that there is, and the log says why the next try will not fare better."""
    accept(web)
    response, auth = refused_generator(failure)
    assert (response.status_code, response.text) == (401, "refused")
    (said,) = warnings(caplog)
    assert "No such" in said
    assert auth.access_token() == "token-1"


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt("Ctrl-C")], ids=repr)
def test_any_other_exception_in_that_renewal_is_raised(web, caplog, error):
    """It is no failure of the endpoint: a signal handler raised it, or it is a bug that must not be hidden."""
    accept(web)
    with pytest.raises(type(error)) as raised:
        refused_generator(error)
    assert raised.value is error
    assert warnings(caplog) == []


def test_a_bug_in_what_is_read_or_rewound_is_not_hidden(auth):
    bug = mock.Mock(side_effect=RuntimeError("a bug"))
    body = type("Body", (io.BytesIO,), {"seek": bug, "len": 4})(b"data")
    for request in (early_request(auth), requests.Request("POST", API, data=body, auth=auth).prepare()):
        response = made_by_hand(request, connection=TokenEndpoint(), raw=mock.Mock(spec=["read", "close"], read=bug))
        with pytest.raises(RuntimeError, match="a bug"):
            request.hooks["response"][0](response)


def test_a_401_whose_renewal_fails_gives_its_connection_back(server, endpoint):
    """The error takes the place of the 401, which is drained before."""
    endpoint.script = ["token-1", Answer(404)]
    with requests.Session() as session:
        session.auth = auth_with(endpoint, environment=server.url)
        with pytest.raises(TokenEndpointError, match="answered 404"):
            session.post(server.url, json={}, stream=True, timeout=5)
        assert session.post(server.url, json={}, timeout=5).text == "fine"
    assert server.connections == 1


DRIP = {"fault": "drip", "within": "body"}  # which lasts for 15 s with 300 bytes
DRAINS = {  # a 401, the connections that it takes to have a retry answered, and how many bytes can be read of it
    "empty": (WireAnswer(401), 1, [0]),
    "chunked": (WireAnswer(401, b"abc", chunked=True), 1, [3]),
    "slow": (WireAnswer(401, b"slow", interval=0.02, **DRIP), 1, [4]),
    "as long as can be": (WireAnswer(401, b"x" * 65_536), 1, [65_536]),
    "too long": (WireAnswer(401, b"x" * 100, times=800, chunked=True), 2, range(65_537, 65_601)),
    "broken off": (WireAnswer(401, b"broken off", fault="close", within="body"), 2, range(10)),
    "not to be decoded": (WireAnswer(401, b"not gzip", {"Content-Encoding": "gzip"}), 1, [0]),
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
        response = session.get(f"{api.url}/thing", timeout=0.3 if refusal.fault == "hang" else 60)
        assert response.text == "fine"
        assert true_clock() - begin < 5
        (refused,) = response.history
        read = b"".join(refused.iter_content(5000))  # first, as `content` makes sure that this works
        assert read == refused.content
        assert len(read) in readable
        assert (refusal.body * refusal.times).startswith(read)
        assert api.connections == connections
        assert api.until(lambda: len(api.open) == 1), "the connection of the 401 was left open"
