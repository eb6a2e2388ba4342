"""The 401 rule: what a refused token leads to, hold-offs, the one hook, and how a request is sent again.

Bodies, drains and the reuse of connections are tested at a server on a loopback port: a mock has none of them.
"""

import copy
import io
import logging
import os
import pickle
import time
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
    return requests.Session().send(request)


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
    ("header", "needed"), [("Bearer token-1", 2), (b"Bearer token-1", 2), ("Basic x", 1), (None, 1)], ids=repr
)
def test_the_refused_token_is_read_from_the_request_itself(web, auth, endpoint, *, header, needed):
    """So a request can be prepared early, and sent by any thread, any number of times, with one renewal in all."""
    request = early_request(auth)
    request.headers = {"Authorization": header} if header else {}
    accept(web, f"token-{needed}")
    assert [send(request).status_code for _ in range(3)] == [200, 200, 200]
    assert (len(web.calls), endpoint.count) == (6, needed)


def test_a_late_401_is_retried_with_a_stale_token_which_is_renewed_by_the_next_request(clock, web, auth, endpoint):
    request = early_request(auth)
    auth.invalidate()
    auth.access_token()
    clock.tick(801)
    accept(web, "token-2")
    assert (send(request).status_code, endpoint.count) == (200, 2)
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
    assert (requests.get(SIBLING, auth=auth).status_code, send(late).status_code, endpoint.count) == (200, 200, 3)
    clock.tick(50.1)
    assert requests.get(API, auth=auth).status_code == 200


@pytest.mark.parametrize(
    ("script", "can_be_resent", "expected"),
    [
        ([], True, ["token-1", "token-2", "token-2", "token-2", "token-3"]),
        *((["opaque"] * 3, can_be, ["opaque"] * 3) for can_be in (True, False)),  # the endpoint returns the very same
    ],
)
def test_a_renewal_that_does_not_help_is_one_warning_and_401s_are_passed_on_for_30_s(
    clock, web, caplog, *, script, can_be_resent, expected
):
    """A missing permission, or a server that caches tokens, costs one renewal in 30 s, not one for each call."""
    caplog.set_level(logging.INFO)
    accept(web)
    endpoint = TokenEndpoint(*script)
    auth = auth_with(endpoint)
    for pause, renewals in ((0, 1), (29.9, 1), (0.2, 2)):
        clock.tick(pause)
        response = requests.post(API, data=b"data" if can_be_resent else iter([b"data"]), auth=auth)
        assert (response.status_code, response.text) == (401, "refused")
        assert (endpoint.count, len(warnings(caplog))) == (1 + renewals, renewals)
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
    assert (send(early[1]).status_code, endpoint.count) == (200, 3)


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
    assert (endpoint.count, warnings(caplog)) == (3, [])


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
    assert [auth.access_token(refused=token) for token in (first, "short")] == ["short", "short"]
    clock.tick(19)
    assert auth.access_token(refused="short") == "token-4"


def test_a_hold_off_is_one_for_the_adapter_and_for_access_token(clock, web, auth, endpoint, caplog):
    """And there is none of a token that was good for 30 s: it was revoked in its turn, and the next one may do."""
    accept(web)
    assert requests.get(API, auth=auth).status_code == 401
    assert (auth.access_token(refused="token-2"), endpoint.count) == ("token-2", 2)
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
    assert (endpoint.count, len(warnings(caplog))) == (2, 1)


def test_a_request_that_waited_for_a_new_token_and_has_it_refused_holds_it_off(web, auth, endpoint, crowd):
    accept(web)
    gate = Gate()
    endpoint.script = ["token-1", gate]
    request = early_request(auth)
    crowd.ask(1, lambda: auth.access_token(refused="token-1"))
    gate.wait_until_reached()
    (waiting,) = crowd.ask(1, lambda: send(request))
    crowd.expect(1)
    gate.open()
    assert [waiting.result(10).status_code, requests.get(API, auth=auth).status_code] == [401, 401]
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
    asked = [*(auth(template.copy()) for auth in merchants), template]
    assert [send(request).status_code for request in asked] == [200, 200, 401]
    assert sent(web) == ["a-1", "a-2", "b-1", "b-2", None]


@pytest.mark.parametrize("first", ["a", "b", "aba", "a!", "ab!"])
def test_a_request_that_was_authenticated_before_is_healed_by_the_last_auth_alone(web, merchants, first):
    """One hook of ours is on it, the last one's, before the caller's own; one that was pickled (`!`) goes."""
    request = requests.Request("GET", API, hooks={"response": note_status}).prepare()
    for step in f"{first}b":
        request = pickle.loads(pickle.dumps(request)) if step == "!" else merchants["ab".index(step)](request)
    assert request.hooks["response"][1:] == [note_status]
    response = send(request)
    assert (response.status_code, response.headers["Seen"]) == (200, "!")
    assert sent(web) == ["b-1", "b-2"]


@pytest.mark.parametrize("hooks", [{"response": note_status}, {"response": None}, {}, {"response": [note_status]}])
def test_the_hook_is_put_first_into_a_dict_of_its_own(auth, hooks):
    """Before one callable, nothing, or a list; what is shared with other requests is left as it was."""
    request = requests.Request("GET", API).prepare()
    request.hooks = hooks
    before = copy.deepcopy(hooks)
    hook, *others = auth(request).hooks["response"]
    assert hooks == before
    assert hook is not note_status
    assert others == ([note_status] if hooks.get("response") else [])


@pytest.mark.parametrize("timeout", [{"timeout": (1, 2)}, {}])
def test_the_retry_is_sent_with_what_the_caller_asked_for(web, auth, timeout):
    """Where there is no timeout, none is made up."""
    accept(web, "token-2")
    asked = {"stream": True, "verify": "a-bundle", "cert": "a-cert", "proxies": {"ftp": "http://p"}, **timeout}
    requests.Session().send(early_request(auth), **asked)
    assert [call.request.req_kwargs for call in web.calls] == [asked, asked]


def test_a_retried_response_is_that_of_its_own_exchange_and_adds_to_the_history_a_401_that_can_be_read(
    clock, auth, endpoint
):
    """Its request and its time are those of the retry. A body that was read is not read again: nothing is left."""

    class OddApi(TokenEndpoint):  # its adapter reads bodies, follows redirects, and keeps the first request on answers
        def send(self, request, *_, **__):
            response = super().send(request)
            response.request = self.requests[0]
            assert response.content == b"{}"
            response.history += [mock.Mock(status_code=302, raw=None)] * (response.status_code == 200)
            return response

    def after(seconds, outcome):
        def take_time():
            clock.tick(seconds)
            return outcome

        return take_time

    endpoint.script = ["token-1", after(7, "token-2")]
    api = OddApi(after(5, Answer(401)), after(2, Answer(200)))
    response = session_with(api).get(API, auth=auth)
    assert response.request is api.requests[1]
    assert [past.status_code for past in response.history] == [302, 401]
    assert response.history[1].content == b"{}"
    assert (response.history[1].elapsed.seconds, response.elapsed.seconds) == (5, 2)


def made_by_hand(request, **parts):
    response = requests.Response()
    raw = mock.Mock(wraps=io.BytesIO(b"refused"), closed=False)
    vars(response).update({"status_code": 401, "request": request, "raw": raw, **parts})
    return response


def test_the_hook_returns_each_response_that_it_does_not_replace(auth, endpoint, caplog):
    """A 401 that came by no connection is one from a cache, or made by hand: it is no news of the token."""
    endpoint.script = ["same", "same"]
    request = early_request(auth)
    (hook,) = request.hooks["response"]
    there = {"connection": TokenEndpoint()}
    for parts in ({"connection": None}, {}, {"raw": None, **there}, {"status_code": 403, **there}):
        response = made_by_hand(request, **parts)
        assert hook(response) is response
        assert response.history == []
        assert response.raw is None or response.raw.read() == b"refused"
    assert (endpoint.count, warnings(caplog)) == (1, [])
    for called in (hook, hook, pickle.loads(pickle.dumps(hook))):  # the very same token, a hold-off, an inert hook
        response = made_by_hand(request, **there)
        assert called(response) is response


@pytest.mark.parametrize(("parts", "body"), [({}, b"refused"), ({"_content_consumed": True}, b"")])
def test_a_401_that_is_not_read_by_urllib3_is_drained_byte_by_byte_unless_somebody_was_faster(auth, parts, body):
    request = early_request(auth)
    response = made_by_hand(request, connection=TokenEndpoint(), **parts)
    assert request.hooks["response"][0](response).history == [response]
    assert response.content == body
    assert {call.args for call in response.raw.read.mock_calls} == ({(1,)} if body else set())


def test_a_401_is_drained_for_a_second_at_most(clock, auth):
    def read(_):
        clock.tick(0.25)
        return b"x"

    drip = mock.Mock(["read", "close"], read=read)
    request = early_request(auth)
    response = made_by_hand(request, connection=TokenEndpoint(), raw=drip)
    assert request.hooks["response"][0](response).history == [response]
    assert response.content == b"xxxx"


@pytest.mark.parametrize(
    ("jar", "header", "expected"),
    [({}, None, [None, "node=7"]), ({"mine": "1"}, None, ["mine=1", "mine=1; node=7"])]
    + [(jar, "a=1", ["a=1", "a=1"]) for jar in ({}, {"mine": "1"})],
)
def test_cookies_of_the_401_go_out_with_the_retry_and_stay_in_the_session(web, auth, jar, header, expected):
    """As a load balancer wants that pins a client; a caller's own header goes before, as in `requests`."""
    web.get(API, status=401, headers={"Set-Cookie": "node=7; Path=/"})
    web.get(API)
    session = requests.Session()
    session.cookies.update(jar)
    session.get(API, auth=auth, headers={"Cookie": header})
    assert session.cookies["node"] == "7"
    assert [call.request.headers.get("Cookie") for call in web.calls] == expected


@pytest.mark.parametrize(("jar", "cookie"), [(None, None), ({"mine": "1"}, "mine=1")])
def test_a_request_whose_cookies_were_taken_off_is_retried_with_what_is_in_its_jar(web, auth, jar, cookie):
    """One that was prepared by hand, part by part, may have no jar at all."""
    accept(web, "token-2")
    request = requests.Request("GET", API, cookies=jar, auth=auth).prepare()
    request.headers.pop("Cookie", None)
    if jar is None:
        request._cookies = None
    assert send(request).status_code == 200
    assert [call.request.headers.get("Cookie") for call in web.calls] == [None, cookie]


def no_way_back(error):
    """Return a file that can be sent, but fails when it is rewound."""
    return type("NoWayBack", (io.BytesIO,), {"seek": mock.Mock(side_effect=error), "len": 4})(b"data")


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
    return [(request.headers["authorization"].removeprefix("Bearer "), request.body) for request in server.requests]


@pytest.mark.parametrize(
    ("body", "expected"),
    [(None, b""), ("text", b"text"), (b"data", b"data"), ({"a": "1"}, b"a=1"), (at_offset, b"x" * 300_000)],
    ids=["none", "text", "bytes", "form", "large file at an offset"],
)
def test_a_body_that_can_be_sent_again_is_sent_from_where_it_started(server, endpoint, body, expected):
    data = body() if callable(body) else body
    response = requests.post(server.url, data=data, auth=auth_with(endpoint, environment=server.url), timeout=5)
    assert response.text == "fine"
    assert posted(server) == [("token-1", expected), ("token-2", expected)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: iter([b"da", b"ta"]),
        lambda: no_way_back(io.UnsupportedOperation),
        lambda: no_way_back(ValueError("I/O operation on closed file.")),
        lambda: mock.Mock(["read", "seek", "tell"], wraps=io.BytesIO(b"data"), len=4),  # no file: it can't be iterated
        pipe,
    ],
    ids=["generator", "no way back", "closed", "no file", "pipe"],
)
def test_a_body_that_cannot_be_sent_again_gets_its_401_and_the_token_is_renewed(server, endpoint, caplog, make):
    """The 401 is returned unread, nothing is sent twice or empty, and the caller's own next try works."""
    caplog.set_level(logging.INFO)
    auth = auth_with(endpoint, environment=server.url)
    bodies = [make(), make()]
    response = requests.post(server.url, data=bodies[0], auth=auth, stream=True, timeout=5)
    assert (response.status_code, response.history) == (401, [])
    assert response.raw.tell() == 0
    assert (response.text, endpoint.count) == ("refused", 2)
    assert caplog.messages[-1] == f"401 of {server.url} passed on: its body can't be sent again"
    assert requests.post(server.url, data=bodies[1], auth=auth, timeout=5).text == "fine"
    assert posted(server) == [("token-1", b"data"), ("token-2", b"data")]
    assert endpoint.count == 2
    for body in (each for each in bodies if hasattr(each, "close")):
        body.close()


def test_where_a_401_could_not_be_retried_a_failed_renewal_is_a_warning_and_a_bug_or_an_interrupt_is_raised(
    web, auth, endpoint, caplog
):
    """The caller gets the answer that there is, and the log says why the next try will not fare better."""
    accept(web)
    endpoint.script = ["token-1", OSError("No such bundle"), Answer(401, {"message": "No such key."})]
    for number in (0, 1):
        response = requests.post(API, data=iter([b"data"]), auth=auth)
        assert (response.status_code, response.text) == (401, "refused")
        assert "No such" in warnings(caplog)[number]
        assert auth.access_token() == "token-1"
    for error in (ValueError("a bug"), KeyboardInterrupt("Ctrl-C")):
        endpoint.script = [error]
        with pytest.raises(type(error)) as raised:
            requests.post(API, data=iter([b"data"]), auth=auth)
        assert raised.value is error
    assert len(warnings(caplog)) == 2


def test_a_bug_in_what_is_read_or_rewound_is_not_hidden(auth):
    bug = RuntimeError("a bug")
    raw = mock.Mock(["read", "close"], **{"read.side_effect": bug})
    for request in (early_request(auth), requests.Request("POST", API, data=no_way_back(bug), auth=auth).prepare()):
        response = made_by_hand(request, connection=TokenEndpoint(), raw=raw)
        with pytest.raises(RuntimeError, match="a bug"):
            request.hooks["response"][0](response)


def test_a_401_whose_renewal_fails_gives_its_connection_back(server, endpoint):
    """The error takes the place of the 401, which is drained before."""
    endpoint.script = ["token-1", Answer(404)]
    auth = auth_with(endpoint, environment=server.url)
    with requests.Session() as session:
        with pytest.raises(TokenEndpointError, match="answered 404"):
            session.post(server.url, auth=auth, stream=True, timeout=5)
        assert session.post(server.url, auth=auth, timeout=5).text == "fine"
    assert server.connections == 1


DRIP = {"fault": "drip", "within": "body"}  # which lasts for 15 s with 300 bytes
DRAINS = {  # a 401, the connections that it takes to have a retry answered, and how many bytes can be read of it
    "empty": (WireAnswer(401), 1, [0]),
    "chunked": (WireAnswer(401, b"abc", chunked=True), 1, [3]),
    "slow": (WireAnswer(401, b"slow", interval=0.02, **DRIP), 1, [4]),
    "as long as can be": (WireAnswer(401, b"x" * 4096, times=16, chunked=True), 1, [65_536]),
    "too long": (WireAnswer(401, b"x" * 100, times=800, chunked=True), 2, range(65_537, 65_601)),
    "broken off": (WireAnswer(401, b"broken off", fault="close", within="body"), 2, range(10)),
    "not to be decoded": (WireAnswer(401, b"not gzip", {"Content-Encoding": "gzip"}), 1, [0]),
    "a drip in a chunk": (WireAnswer(401, b"x" * 300, chunked=True, **DRIP), 2, range(1, 300)),
    "silence": (WireAnswer(401, b"x" * 300, fault="hang", within="body"), 2, range(300)),  # until its read timeout
}


@pytest.mark.parametrize(("refusal", "connections", "readable"), DRAINS.values(), ids=DRAINS)
def test_a_401_is_drained_if_it_is_short_and_cut_off_otherwise(endpoint, monkeypatch, refusal, connections, readable):
    """64 KiB and a second are worth a connection. The retry works in any case, and what was read stays readable."""
    speed = 4 if refusal is DRAINS["a drip in a chunk"][0] else 0  # saves real seconds, and needs none elsewhere
    monkeypatch.setattr(time, "monotonic", lambda: speed * time.perf_counter())
    with Loopback(refusal, WireAnswer(body=b"fine")) as api, requests.Session() as session:
        auth = auth_with(endpoint, environment=api.url)
        response = session.get(api.url, auth=auth, timeout=0.8 if refusal.fault == "hang" else 60)
        assert response.text == "fine"
        (refused,) = response.history
        read = b"".join(refused.iter_content(5000))  # first, as `content` makes sure that this works
        assert read == refused.content
        assert len(read) in readable
        assert (refusal.body * refusal.times).startswith(read)
        assert api.connections == connections
        assert api.until(lambda: len(api.open) == 1), "the connection of the 401 was left open"
