"""The sandbox, through plain HTTP clients on real sockets."""

from __future__ import annotations

import base64
import contextlib
import gc
import http.client
import json
import socket
import struct
import threading
import time
from datetime import datetime, timezone

import jwt
import pytest
import requests
from freezegun import freeze_time

from requests_mentionme import sandbox as module
from requests_mentionme.sandbox import Sandbox, SeenRequest

API = "/api/merchant/v2"
CUSTOMERS, LAPSE = f"{API}/customers", f"{API}/customers/lapse"
REWARDS, REFEREE = f"{API}/customers/rewards", f"{API}/referee/eligibility"
COUPON = f"{API}/coupons/validate/SAMPLE"
TOKEN = "/api/oauth/token"
JSON = {"Content-Type": "application/json"}
CREDENTIALS = {
    "client_id": "sandbox-id",
    "client_secret": "sandbox-secret",
    "grant_type": "client_credentials",
}
ADA = {"type": "email", "value": "ada@example.com"}
BOB = {"type": "email", "value": "Bob@Unknown.Example"}
ENDPOINTS = {
    "get customers": ("POST", CUSTOMERS, {"identifiers": [ADA]}),
    "purge customers": ("DELETE", CUSTOMERS, {"identifiers": [ADA]}),
    "lapse customers": ("POST", LAPSE, {"identifiers": [ADA]}),
    "get rewards": ("POST", REWARDS, {"identifier": ADA}),
    "referee eligibility": ("POST", REFEREE, {"identifiers": [ADA]}),
    "validate coupon": ("GET", COUPON, None),
}
SIDES = pytest.mark.parametrize("side", ["token", "api"])


@pytest.fixture
def connection(sandbox):
    """A keep-alive connection to the sandbox."""
    with contextlib.closing(connect(sandbox)) as opened:
        yield opened


def connect(sandbox):
    """Return a connection that is opened by its first request."""
    return http.client.HTTPConnection("127.0.0.1", port_of(sandbox), timeout=10)


def port_of(sandbox):
    """Return the port it listens on."""
    return int(sandbox.url.rpartition(":")[2])


class Reply:
    """An answer, read to its end."""

    def __init__(self, response):
        """Read."""
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self):
        """The content."""
        return json.loads(self.body)

    @property
    def limits(self):
        """The values of the three rate limit headers."""
        names = ("Limit", "Remaining", "Reset")
        return tuple(self.headers[f"X-RateLimit-{name}"] for name in names)


def ask(where, method, path, body=None, headers=JSON):
    """Send a request on a connection, or on a new one to a sandbox."""
    if isinstance(where, Sandbox):
        with contextlib.closing(connect(where)) as opened:
            return ask(opened, method, path, body, headers)
    content = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    where.request(method, path, content, headers)
    return Reply(where.getresponse())


def ask_for_token(where, **changes):
    """Send a token request, in which some fields may be changed."""
    return ask(where, "POST", TOKEN, CREDENTIALS | changes)


def new_token(where, **changes):
    """Return a token, fresh from the endpoint."""
    return ask_for_token(where, **changes).json["access_token"]


def call(where, token, method="GET", path=COUPON, body=None):
    """Send a request with a token; validate a coupon if nothing else is said."""
    return ask(where, method, path, body, {"Authorization": f"Bearer {token}", **JSON})


def ask_side(where, side):
    """Ask the token endpoint or the API, in vain: it has no token."""
    return ask_for_token(where) if side == "token" else ask(where, "GET", COUPON)


def fail(sandbox, side, *args, **options):
    """Ask for a fault on one side."""
    getattr(sandbox, f"fail_{side}_requests")(*args, **options)


def exchange(sandbox, *pieces):
    """Send bytes, and return all that comes back until the connection ends."""
    with socket.create_connection(("127.0.0.1", port_of(sandbox)), timeout=10) as client:
        for piece in pieces:
            client.sendall(piece)
        return b"".join(iter(lambda: client.recv(65_536), b""))


def wait_until(condition):
    """Return as soon as it is so; fail after ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)


def claims_of(token):
    """Return the payload of a token."""
    return jwt.decode(token, options={"verify_signature": False})


# Starting and stopping


def test_sandbox_serves_until_the_block_ends():
    """Inside the block it answers; afterwards nobody listens on its port."""
    with Sandbox() as sandbox:
        assert ask_for_token(sandbox).status == 200
    with pytest.raises(ConnectionRefusedError):
        ask_for_token(sandbox)


def test_what_was_seen_stays_readable_after_stop():
    """A stopped sandbox still has its URL, its counters and its records."""
    with Sandbox() as sandbox:
        token = new_token(sandbox)
    assert sandbox.url.startswith("http://127.0.0.1:")
    assert (sandbox.token_requests, sandbox.connections, sandbox.tokens) == (1, 1, (token,))
    assert len(sandbox.requests) == 1


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_sandbox_starts_only_once(stopped):
    """Neither a running nor a stopped sandbox can be started."""
    with Sandbox() as sandbox:
        if stopped:
            sandbox.stop()
        with pytest.raises(RuntimeError, match="only once"):
            sandbox.start()


def test_stop_without_start_does_nothing():
    """A sandbox that was told to stop too early can still be started."""
    sandbox = Sandbox()
    sandbox.stop()
    with sandbox:
        assert ask_for_token(sandbox).status == 200
    with pytest.raises(ConnectionRefusedError):
        ask_for_token(sandbox)


def test_stop_can_be_repeated(sandbox):
    """The second stop does nothing."""
    sandbox.stop()
    sandbox.stop()


@pytest.mark.parametrize("name", ["url", "environment"])
def test_sandbox_that_was_never_started_has_no_address(name):
    """Before the start there is no port to tell of."""
    with pytest.raises(RuntimeError, match="before it is started"):
        getattr(Sandbox(), name)


def test_sandbox_takes_the_port_it_is_given(sandbox):
    """A port that is taken is an OSError, after which it still counts as not started."""
    second = Sandbox(port=port_of(sandbox))
    with pytest.raises(OSError, match=r"in use|usage"):
        second.start()
    assert repr(second) == "<Sandbox, not started>"


def test_port_can_be_used_again_at_once():
    """What lingers of the connections of one sandbox does not keep the next from its port."""
    with Sandbox() as first, contextlib.closing(connect(first)) as kept:
        ask_for_token(kept)
        first.stop()
        with Sandbox(port=port_of(first)) as second:
            assert second.url == first.url
            assert ask_for_token(second).status == 200


def test_many_clients_can_connect_at_the_same_moment(sandbox):
    """More than it takes threads to be accepted one by one."""
    assert sandbox._server.request_queue_size >= 256


def test_answers_are_not_held_back(sandbox, connection):
    """Nagle's algorithm would let some of them wait for the client's acknowledgement."""
    ask_for_token(connection)
    (served,) = sandbox._server._workers.values()
    assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_sandbox_is_only_on_127_0_0_1(sandbox):
    """Another address of this machine does not lead to it."""
    with pytest.raises(OSError):  # noqa: PT011 - refused or unreachable, as the system likes
        socket.create_connection(("127.0.0.2", port_of(sandbox)), timeout=1)


def test_environment_leads_to_the_sandbox(sandbox):
    """Its environment has its token endpoint, and trusts its origin alone."""
    environment = sandbox.environment
    assert environment.token_url == sandbox.url + TOKEN
    assert environment.origins == {sandbox.url}


def test_repr_shows_address_and_state_but_no_secret():
    """What is printed by accident gives nothing away."""
    sandbox = Sandbox(client_secret="hush")
    assert repr(sandbox) == "<Sandbox, not started>"
    with sandbox:
        assert repr(sandbox) == f"<Sandbox {sandbox.url}, running>"
    assert repr(sandbox) == f"<Sandbox {sandbox.url}, stopped>"


def test_stop_closes_idle_connections(sandbox, connection):
    """A client that keeps its connection finds it closed."""
    ask_for_token(connection)
    kept = connection.sock
    sandbox.stop()
    assert kept.recv(1) == b""


def test_stop_leaves_no_thread_and_no_socket_behind():
    """Every thread has ended and every socket is closed, also of clients that are still there."""
    before = set(threading.enumerate())
    with contextlib.ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox())
        for _ in range(8):
            client = stack.enter_context(contextlib.closing(connect(sandbox)))
            ask_for_token(client)
        sandbox.stop()
        assert set(threading.enumerate()) <= before
    gc.collect()  # an open socket would be a warning now, and so an error


def test_connections_that_ended_are_forgotten(sandbox):
    """The account of open connections does not grow with those that are closed."""
    for _ in range(5):
        ask_for_token(sandbox)
    wait_until(lambda: not len(sandbox._server._workers))


def test_stop_ends_a_delay(sandbox):
    """A request in the middle of a long delay is dropped, without an answer."""
    sandbox.fail_token_requests(delay=600)
    with socket.create_connection(("127.0.0.1", port_of(sandbox)), timeout=10) as client:
        client.sendall(b"POST /api/oauth/token HTTP/1.1\r\n\r\n")
        wait_until(lambda: sandbox.token_requests)
        sandbox.stop()
        assert client.recv(1) == b""
    assert [seen.status for seen in sandbox.requests] == [None]


def test_64_threads_that_connect_at_once_are_all_served(sandbox):
    """No cold start is refused or delayed, and every one gets a token of its own."""
    barrier = threading.Barrier(64)
    tokens = []

    def work():
        barrier.wait(10)
        tokens.append(new_token(sandbox))

    threads = [threading.Thread(target=work) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(set(tokens)) == 64
    assert set(sandbox.tokens) == set(tokens)
    assert sandbox.token_requests == sandbox.connections == len(sandbox.requests) == 64


# Quiet, whatever clients do


def test_client_that_resets_in_the_middle_of_an_answer_makes_no_noise(capfd):
    """A broken connection is no news: nothing is printed."""
    with Sandbox() as sandbox:
        sandbox.fail_api_requests(status=200, body=b"x" * 32_000_000)
        with socket.create_connection(("127.0.0.1", port_of(sandbox)), timeout=10) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert client.recv(8) == b"HTTP/1.1"
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "unfinished",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
    ],
    ids=["length", "chunked"],
)
def test_client_that_leaves_in_the_middle_of_its_request_makes_no_noise(capfd, unfinished):
    """Half a request is not answered, not counted and not reported."""
    with Sandbox() as sandbox:
        with socket.create_connection(("127.0.0.1", port_of(sandbox)), timeout=10) as client:
            client.sendall(unfinished)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
        assert (sandbox.api_requests, sandbox.requests) == (0, ())
    assert capfd.readouterr() == ("", "")


def test_requests_are_not_logged(sandbox, capfd):
    """Neither an answer nor an unreadable request is printed."""
    ask_for_token(sandbox)
    exchange(sandbox, b"nonsense\r\n\r\n")
    assert capfd.readouterr() == ("", "")


def test_a_fault_of_the_sandbox_itself_is_shown(monkeypatch, capfd):
    """What is no client's doing ends up on stderr, as servers do it."""
    monkeypatch.setattr(module.secrets, "token_hex", lambda _: 1 / 0)
    with Sandbox() as sandbox, pytest.raises(http.client.RemoteDisconnected):
        ask_for_token(sandbox)
    assert "ZeroDivisionError" in capfd.readouterr().err


# Arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"client_id": 7}, "client_id must be str, not int"),
        ({"client_secret": b"hush"}, "client_secret must be str, not bytes"),
        ({"scope": None}, "scope must be str, not NoneType"),
        ({"env": None}, "env must be str, not NoneType"),
        ({"merchant_id": "4259"}, "merchant_id must be int, not str"),
        ({"rate_limit": True}, "rate_limit must be int, not bool"),
        ({"port": "80"}, "port must be int, not str"),
        ({"lifetime": "1"}, "lifetime must be int or float, not str"),
    ],
    ids=str,
)
def test_option_of_the_wrong_type_is_a_type_error(options, message):
    """The message names the option and the type it must have."""
    with pytest.raises(TypeError) as error:
        Sandbox(**options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"client_id": ""}, "the length of client_id must be 1 or more"),
        ({"client_secret": ""}, "the length of client_secret must be 1 or more"),
        ({"env": ""}, "the length of env must be 1 or more"),
        ({"merchant_id": -1}, "merchant_id must be 0 or more"),
        ({"rate_limit": 0}, "rate_limit must be 1 or more"),
        ({"port": -1}, "port must be from 0 to 65535"),
        ({"port": 65_536}, "port must be from 0 to 65535"),
        ({"lifetime": 0}, "lifetime must be from 0.001 to 1000000000.0"),
        ({"lifetime": float("nan")}, "lifetime must be from 0.001 to 1000000000.0"),
        ({"lifetime": float("inf")}, "lifetime must be from 0.001 to 1000000000.0"),
    ],
    ids=str,
)
def test_option_out_of_range_is_a_value_error(options, message):
    """The message names the option and its range."""
    with pytest.raises(ValueError, match="must be") as error:
        Sandbox(**options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, "ask for a status, a delay, a reset or garbage"),
        ({"status": 500, "reset": True}, "exclude each other"),
        ({"status": 500, "garbage": True}, "exclude each other"),
        ({"reset": True, "garbage": True}, "exclude each other"),
        ({"delay": 1, "headers": {"A": "b"}}, "headers and body need a status"),
        ({"reset": True, "body": ""}, "headers and body need a status"),
        ({"times": 0, "reset": True}, "times must be 1 or more"),
        ({"delay": -0.1}, "delay must be from 0 to"),
        ({"delay": float("nan")}, "delay must be from 0 to"),
        ({"delay": float("inf")}, "delay must be from 0 to"),
        ({"status": 199}, "status must be from 200 to 599"),
        ({"status": 600}, "status must be from 200 to 599"),
        ({"status": 500, "headers": {"": "a"}}, "no header can be like ''"),
        ({"status": 500, "headers": {"A b": "c"}}, "no header can be like 'A b'"),
        ({"status": 500, "headers": {"A": "b\r\nC: d"}}, "no header can be like 'A'"),
        ({"status": 500, "headers": {"A": "é"}}, "no header can be like 'A'"),
    ],
    ids=str,
)
@SIDES
def test_fault_that_makes_no_sense_is_a_value_error(sandbox, side, options, error):
    """The mistake is told at once, and nothing goes wrong later."""
    with pytest.raises(ValueError, match=error):
        fail(sandbox, side, **options)
    assert ask_for_token(sandbox).status == 200
    assert call(sandbox, sandbox.tokens[0]).status == 200


@pytest.mark.parametrize(
    "options",
    [
        {"times": 1.0, "reset": True},
        {"times": True, "reset": True},
        {"status": "500"},
        {"delay": "1"},
        {"status": 500, "body": {}},
        {"status": 500, "headers": {1: "a"}},
        {"status": 500, "headers": {"A": 1}},
    ],
    ids=str,
)
def test_fault_with_a_wrong_type_is_a_type_error(sandbox, options):
    """Types are checked at once, not when a request arrives."""
    with pytest.raises(TypeError, match="must be"):
        sandbox.fail_api_requests(**options)


# The token endpoint


@freeze_time("2026-03-01 12:00:00")
def test_token_response_has_the_documented_fields(sandbox):
    """Three fields, as JSON, with the time of the answer."""
    reply = ask_for_token(sandbox)
    assert reply.status == 200
    assert reply.json == {
        "access_token": sandbox.tokens[0],
        "expires_in": 3600,
        "token_type": "bearer",
    }
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Date"] == "Sun, 01 Mar 2026 12:00:00 GMT"


@freeze_time("2026-03-01 12:00:00")
def test_token_is_a_signed_jwt_with_the_documented_claims():
    """PyJWT accepts the signature, and the claims say what the options said."""
    with Sandbox(merchant_id=7, env="live", scope="a b", lifetime=60) as sandbox:
        token = new_token(sandbox)
    now = datetime(2026, 3, 1, 12, tzinfo=timezone.utc).timestamp()
    assert jwt.get_unverified_header(token) == {"typ": "JWT", "alg": "HS256"}
    claims = jwt.decode(token, sandbox._signing_key, algorithms=["HS256"])
    assert len(claims.pop("jti")) == 16
    assert claims == {
        "claims": {"env": "live", "merchantId": 7},
        "scope": "a b",
        "iat": now,
        "exp": now + 60,
    }


def test_defaults_are_the_documented_values(sandbox):
    """Without options it is the merchant of the documentation, with all the known scopes."""
    claims = claims_of(new_token(sandbox))
    assert claims["claims"] == {"env": "demo", "merchantId": 4259}
    assert claims["scope"] == "customers:read customers:write customers:delete rewards:read"
    assert (sandbox.client_id, sandbox.client_secret) == ("sandbox-id", "sandbox-secret")


@freeze_time("2026-03-01 12:00:00")
def test_no_two_tokens_are_alike(sandbox, connection):
    """Tokens of the same instant differ, and are kept in order."""
    tokens = [new_token(connection) for _ in range(3)]
    assert len(set(tokens)) == 3
    assert sandbox.tokens == tuple(tokens)


def test_no_two_sandboxes_sign_alike(sandbox):
    """A token from elsewhere is an unknown one, whatever it says."""
    with Sandbox() as other:
        assert call(sandbox, new_token(other)).status == 401
    assert sandbox._signing_key != other._signing_key


def test_form_of_the_content_type_does_not_matter(sandbox):
    """Case and parameters of the media type are as the client likes."""
    headers = {"Content-Type": "Application/JSON ; charset=utf-8"}
    assert ask(sandbox, "POST", TOKEN, CREDENTIALS, headers).status == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"Content-Type": "application/x-www-form-urlencoded"}],
    ids=["none", "form"],
)
def test_token_request_must_be_declared_as_json(sandbox, headers):
    """The documented request is JSON, and says so."""
    reply = ask(sandbox, "POST", TOKEN, CREDENTIALS, headers)
    assert (reply.status, reply.json["code"]) == (400, "400")
    assert "application/json" in reply.json["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The body must be JSON."),
        (b"{", "The body must be JSON."),
        (b"\xff", "The body must be JSON."),
        (b"[" * 100_000, "The body must be JSON."),
        (b"[]", "is missing"),
        (b'"text"', "is missing"),
        (b"null", "is missing"),
    ],
    ids=["empty", "cut", "no utf-8", "deep", "list", "text", "null"],
)
@pytest.mark.parametrize("path", [TOKEN, CUSTOMERS, REWARDS, LAPSE])
def test_body_that_is_no_json_object_is_a_bad_request(sandbox, connection, path, body, message):
    """Nothing that a client can write breaks the server or the connection."""
    reply = call(connection, new_token(connection), "POST", path, body)
    assert (reply.status, reply.json["code"]) == (400, "400")
    assert message in reply.json["message"]
    assert ask_for_token(connection).status == 200
    assert sandbox.connections == 1


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"client_id": None}, 400, "client_id is missing, empty or of the wrong type."),
        ({"client_id": ""}, 400, "client_id is missing, empty or of the wrong type."),
        ({"client_secret": 7}, 400, "client_secret is missing, empty or of the wrong type."),
        ({"grant_type": None}, 400, "grant_type is missing, empty or of the wrong type."),
        ({"grant_type": "password"}, 400, "The grant_type must be client_credentials."),
        ({"client_id": "nobody"}, 401, "Unknown client or wrong secret."),
        ({"client_secret": "wrong"}, 401, "Unknown client or wrong secret."),
    ],
    ids=str,
)
def test_wrong_token_request_is_refused(sandbox, changes, status, message):
    """Refusals have the documented shape, and cost no token."""
    reply = ask_for_token(sandbox, **changes)
    assert reply.status == status
    assert reply.json == {"code": str(status), "message": message}
    assert sandbox.tokens == ()


def test_token_request_must_be_a_post(sandbox):
    """Any other method is refused, and told which one to use."""
    reply = ask(sandbox, "GET", TOKEN)
    assert (reply.status, reply.headers["Allow"]) == (405, "POST")
    assert sandbox.token_requests == 1


def test_lifetime_can_be_changed_while_it_runs(sandbox):
    """The next token lives as long as the attribute says now."""
    sandbox.lifetime = 0.25
    reply = ask_for_token(sandbox)
    claims = claims_of(reply.json["access_token"])
    assert reply.json["expires_in"] == sandbox.lifetime == 0.25
    assert claims["exp"] - claims["iat"] == pytest.approx(0.25)
    with pytest.raises(ValueError, match="lifetime"):
        sandbox.lifetime = -1
    assert sandbox.lifetime == 0.25


# API keys


def test_key_that_was_added_works_beside_the_first(sandbox):
    """A rotation has two valid keys, each with the scopes it was given."""
    second = {"client_id": "second", "client_secret": "hush"}
    sandbox.add_client(**second, scope="rewards:read")
    sandbox.add_client("third", "hush")
    assert claims_of(new_token(sandbox, **second))["scope"] == "rewards:read"
    assert claims_of(new_token(sandbox, client_id="third", client_secret="hush"))["scope"].startswith("customers:read ")
    assert ask_for_token(sandbox).status == 200
    assert ask_for_token(sandbox, client_id="second").status == 401


def test_key_that_was_removed_dies_with_its_tokens(sandbox):
    """It gets no token any more, its tokens are refused, and other keys go on."""
    second = {"client_id": "second", "client_secret": "hush"}
    sandbox.add_client(**second)
    old, new = new_token(sandbox), new_token(sandbox, **second)
    sandbox.remove_client("sandbox-id")
    assert ask_for_token(sandbox).status == 401
    assert call(sandbox, old).json == {"code": "401", "message": "Revoked token."}
    assert call(sandbox, new).status == 200
    sandbox.add_client("sandbox-id", "fresh")
    assert call(sandbox, old).status == 401


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("sandbox-id", "s"), ValueError, "there is a client 'sandbox-id' already"),
        (("", "s"), ValueError, "the length of client_id must be 1 or more"),
        (("i", ""), ValueError, "the length of client_secret must be 1 or more"),
        (("i", b"s"), TypeError, "client_secret must be str, not bytes"),
        (("i", "s", 1), TypeError, "scope must be str, not int"),
    ],
    ids=str,
)
def test_key_that_makes_no_sense_is_not_added(sandbox, arguments, error, message):
    """Mistakes are told at once."""
    with pytest.raises(error) as raised:
        sandbox.add_client(*arguments)
    assert str(raised.value) == message


def test_key_that_is_not_there_cannot_be_removed(sandbox):
    """A typo does not pass for a deletion."""
    with pytest.raises(ValueError, match="there is no client 'nobody'"):
        sandbox.remove_client("nobody")


# Tokens at the API


def tampered(token):
    """Return the token with another signature of the same form."""
    head, _, signature = token.rpartition(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "="))
    raw[0] ^= 1
    return f"{head}.{base64.urlsafe_b64encode(raw).decode().rstrip('=')}"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "Missing token."),
        ("", "Missing token."),
        ("Basic {token}", "Missing token."),
        ("Bearer", "Missing token."),
        ("Bearer  ", "Missing token."),
        ("Bearer{token}", "Missing token."),
        ("Bearer nonsense", "Unknown token."),
        ("Bearer {tampered}", "Unknown token."),
        ("Bearer {token}, Bearer {token}", "Unknown token."),
    ],
    ids=str,
)
def test_request_without_a_good_token_is_rejected(sandbox, header, message):
    """A 401 says what is the matter, and counts as a rejection."""
    token = new_token(sandbox)
    headers = {}
    if header is not None:
        headers["Authorization"] = header.format(token=token, tampered=tampered(token))
    reply = ask(sandbox, "GET", COUPON, None, headers)
    assert reply.status == 401
    assert reply.json == {"code": "401", "message": message}
    assert (sandbox.api_requests, sandbox.rejections) == (1, 1)


def test_scheme_has_no_case(sandbox):
    """RFC 9110 wants `bearer` to be as good as `Bearer`."""
    headers = {"Authorization": f"bEARER   {new_token(sandbox)}"}
    assert ask(sandbox, "GET", COUPON, None, headers).status == 200
    assert sandbox.rejections == 0


@pytest.mark.parametrize(("after", "status"), [(59.9, 200), (60, 401), (61, 401)], ids=["before", "at", "after"])
def test_token_expires_when_its_lifetime_is_over(after, status):
    """It is good until the very second of `exp`, then refused in the documented words."""
    with freeze_time("2026-03-01 12:00:00") as clock, Sandbox(lifetime=60) as sandbox:
        token = new_token(sandbox)
        clock.tick(after)
        reply = call(sandbox, token)
    assert reply.status == status
    if status == 401:
        assert reply.json == {"code": "401", "message": "Expired token."}


def test_one_token_can_be_revoked(sandbox):
    """The others stay good."""
    first, second = new_token(sandbox), new_token(sandbox)
    sandbox.revoke(first)
    assert call(sandbox, first).json == {"code": "401", "message": "Revoked token."}
    assert call(sandbox, second).status == 200


def test_all_tokens_can_be_revoked(sandbox):
    """Those issued so far die; the next one is good."""
    tokens = [new_token(sandbox), new_token(sandbox)]
    sandbox.revoke()
    assert [call(sandbox, token).status for token in tokens] == [401, 401]
    assert call(sandbox, new_token(sandbox)).status == 200
    assert sandbox.rejections == 2


def test_only_its_own_tokens_can_be_revoked(sandbox):
    """A typo does not pass for a revocation, and the message does not repeat the token."""
    with pytest.raises(ValueError, match="no such token") as error:
        sandbox.revoke("hush")
    assert "hush" not in str(error.value)


def test_oldest_tokens_are_forgotten(monkeypatch):
    """Memory is bounded: what fell out of it is unknown."""
    monkeypatch.setattr(module, "_KEPT", 2)
    with Sandbox() as sandbox:
        tokens = [new_token(sandbox) for _ in range(3)]
        assert sandbox.tokens == tuple(tokens[1:])
        assert call(sandbox, tokens[0]).json["message"] == "Unknown token."
        assert call(sandbox, tokens[1]).status == 200


# The endpoints


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_endpoint_answers_the_same_every_time(sandbox, endpoint):
    """Answers depend on the request alone: neither on the time nor on the sandbox."""
    with Sandbox() as other:
        replies = [call(each, new_token(each), *ENDPOINTS[endpoint]) for each in (sandbox, other)]
    assert [reply.status for reply in replies] == [200, 200]
    assert replies[0].body == replies[1].body
    assert replies[0].headers["Content-Type"] == "application/json"


def test_customers_are_found_or_listed_as_errors(sandbox):
    """Those that are not found ride inside a 200, as long as one is found."""
    reply = call(sandbox, new_token(sandbox), "POST", CUSTOMERS, {"identifiers": [ADA, BOB]})
    assert reply.status == 200
    assert reply.json["errors"] == [{"value": BOB["value"], "reason": "notFound"}]
    (customer,) = reply.json["data"]
    assert customer["email"] == ADA["value"]
    assert set(customer) == {
        *("customerId", "email", "firstname", "surname", "phoneNumbers", "profileUrl"),
        *("mentionMeCustomerId", "offers", "nps", "createdDate", "lastPurchaseDate"),
        *("receivingEmails", "suspectedOfGaming", "metrics", "segments"),
    }


def test_customers_differ(sandbox):
    """Another identifier is another customer; one that is no email is taken as the id."""
    by_id = {"type": "customerId", "value": "C-7"}
    eve = {"type": "email", "value": "eve@example.com"}
    body = {"identifiers": [ADA, eve, by_id]}
    ada, eve, other = call(sandbox, new_token(sandbox), "POST", CUSTOMERS, body).json["data"]
    assert ada["customerId"] != eve["customerId"]
    assert ada["mentionMeCustomerId"] != eve["mentionMeCustomerId"]
    assert other["customerId"] == "C-7"
    assert other["email"].endswith("@shop.example")


def test_customers_of_whom_none_is_found_are_a_404(sandbox):
    """This is the one endpoint that is documented to do so."""
    reply = call(sandbox, new_token(sandbox), "POST", CUSTOMERS, {"identifiers": [BOB]})
    assert reply.status == 404
    assert reply.json == {"code": "404", "message": "None of these customers was found."}


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", CUSTOMERS), ("POST", LAPSE), ("POST", REFEREE)],
    ids=["purge", "lapse", "eligibility"],
)
def test_queued_work_tells_what_was_accepted(sandbox, method, path):
    """What is not found is an error, next to what is queued."""
    reply = call(sandbox, new_token(sandbox), method, path, {"identifiers": [ADA, BOB]})
    assert reply.status == 200
    errors = [{"value": BOB["value"], "reason": "notFound"}]
    assert reply.json == {"accepted": [ADA], "errors": errors}


def test_rewards_come_with_their_customer(sandbox):
    """The same customer as elsewhere, and at least one reward of the documented shape."""
    token = new_token(sandbox)
    data = call(sandbox, token, "POST", REWARDS, {"identifier": ADA}).json["data"]
    customers = call(sandbox, token, "POST", CUSTOMERS, {"identifiers": [ADA]}).json["data"]
    assert data["customer"] == {name: customers[0][name] for name in ("customerId", "email")}
    assert set(data["rewards"][0]) == {
        *("id", "fulfilledBy", "amount", "description", "beforePurchase", "securityCode"),
        *("minimumFriendsRequired", "spendConstraint", "callToActionUrl", "couponCode"),
        *("couponLink", "expiryDate"),
    }


@pytest.mark.parametrize(
    ("identifier", "status"),
    [(BOB, 404), ({"type": "customerId", "value": "C-7"}, 400)],
    ids=["unknown", "not by email"],
)
def test_rewards_are_for_known_emails_only(sandbox, identifier, status):
    """Rewards are documented for one email identifier."""
    reply = call(sandbox, new_token(sandbox), "POST", REWARDS, {"identifier": identifier})
    assert (reply.status, reply.json["code"]) == (status, str(status))


@pytest.mark.parametrize(
    ("code", "validity"),
    [
        ("SAMPLE", "FOUND_REDEEMABLE"),
        ("SAM%50LE", "FOUND_REDEEMABLE"),
        ("SAMPLE?a=b", "FOUND_REDEEMABLE"),
        ("USED", "FOUND_NOT_REDEEMABLE"),
        ("sample", "NOT_FOUND"),
        ("10%2F20%25%C3%A9", "NOT_FOUND"),
        ("%FF", "NOT_FOUND"),
        ("{coupon_code}", "NOT_FOUND"),
    ],
)
def test_coupon_code_decides_its_validity(sandbox, code, validity):
    """The code is a path segment, percent-encoded; an unknown one is no 404."""
    reply = call(sandbox, new_token(sandbox), "GET", f"{API}/coupons/validate/{code}")
    assert reply.status == 200
    assert reply.json["validityResponseCode"] == validity
    details = {"validityResponseDescription", "rewardType", "rewardAmount", "currencyCode"}
    expected = set() if validity == "NOT_FOUND" else details | {"description"}
    assert set(reply.json) == {"validityResponseCode"} | expected


@pytest.mark.parametrize(
    "identifiers",
    [
        None,
        "ada@example.com",
        {"type": "email", "value": "a"},
        [],
        [ADA] * 101,
        ["ada@example.com"],
        [{"type": "email"}],
        [{"type": "", "value": "a"}],
        [{"type": "email", "value": 7}],
        [ADA, {"value": "a"}],
    ],
    ids=[
        *("none", "text", "one object", "no items", "101", "text item", "no value"),
        *("empty type", "number", "second"),
    ],
)
@pytest.mark.parametrize("endpoint", ["get customers", "purge customers"])
def test_malformed_identifiers_are_a_bad_request(sandbox, endpoint, identifiers):
    """There must be 1 to 100 of them, each with a type and a value."""
    method, path, _ = ENDPOINTS[endpoint]
    reply = call(sandbox, new_token(sandbox), method, path, {"identifiers": identifiers})
    assert (reply.status, reply.json["code"]) == (400, "400")


@pytest.mark.parametrize("identifier", [None, "ada", [ADA], {"type": "email"}], ids=str)
def test_malformed_identifier_of_rewards_is_a_bad_request(sandbox, identifier):
    """There must be just one, with a type and a value."""
    reply = call(sandbox, new_token(sandbox), "POST", REWARDS, {"identifier": identifier})
    assert (reply.status, reply.json["code"]) == (400, "400")


def test_100_identifiers_are_not_too_many(sandbox):
    """The documented limit itself is allowed."""
    reply = call(sandbox, new_token(sandbox), "POST", CUSTOMERS, {"identifiers": [ADA] * 100})
    assert len(reply.json["data"]) == 100


def test_text_that_cannot_be_encoded_is_answered_too(sandbox):
    """JSON may hold half a surrogate pair."""
    body = b'{"identifiers": [{"type": "email", "value": "\\ud800"}]}'
    assert call(sandbox, new_token(sandbox), "POST", CUSTOMERS, body).status == 200


@pytest.mark.parametrize(
    ("endpoint", "scope", "missing"),
    [
        ("get customers", "customers:write", "customers:read"),
        ("purge customers", "customers:read", "customers:delete"),
        ("lapse customers", "customers:read", "customers:write"),
        ("referee eligibility", "", "customers:write"),
        ("get rewards", "", "customers:read rewards:read"),
        ("get rewards", "rewards:read", "customers:read"),
        ("get rewards", "customers:read", "rewards:read"),
    ],
)
def test_token_without_the_scope_is_forbidden(endpoint, scope, missing):
    """A 403 tells which scope is missing; it is no rejection of the token."""
    with Sandbox(scope=scope) as sandbox:
        reply = call(sandbox, new_token(sandbox), *ENDPOINTS[endpoint])
        assert reply.status == 403
        assert reply.json == {"code": "403", "message": f"Missing scope: {missing}."}
        assert sandbox.rejections == 0


@pytest.mark.parametrize(
    ("endpoint", "scope"),
    [
        ("get customers", "customers:read"),
        ("purge customers", "customers:delete"),
        ("lapse customers", "customers:write"),
        ("referee eligibility", "customers:write"),
        ("get rewards", "other rewards:read customers:read"),
        ("validate coupon", ""),
    ],
)
def test_documented_scopes_are_enough(endpoint, scope):
    """No endpoint wants more than its page says."""
    with Sandbox(scope=scope) as sandbox:
        assert call(sandbox, new_token(sandbox), *ENDPOINTS[endpoint]).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/merchant/v2",
        "/api/merchant/v20/customers",
        "/api/consumer/v2/order",
        f"{API}/",
        f"{API}/customer",
        f"{API}/customers/",
        f"{API}/coupons/validate",
        f"{API}/coupons/validate/",
        f"{API}/coupons/validate/SAM/PLE",
        f"{TOKEN}/",
    ],
)
def test_unknown_path_is_not_found(sandbox, path):
    """Nothing is at a path that is not documented."""
    reply = call(sandbox, new_token(sandbox), "GET", path)
    assert reply.status == 404
    assert reply.json == {"code": "404", "message": "Not found."}
    assert (sandbox.token_requests, sandbox.api_requests) == (1, 1)


def test_unknown_path_of_the_api_still_needs_a_token(sandbox):
    """Who has no token learns nothing about the paths."""
    assert ask(sandbox, "GET", f"{API}/customer").status == 401
    assert ask(sandbox, "GET", "/customer").status == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CUSTOMERS, "POST, DELETE"),
        ("HEAD", CUSTOMERS, "POST, DELETE"),
        ("PUT", CUSTOMERS, "POST, DELETE"),
        ("DELETE", LAPSE, "POST"),
        ("PATCH", REWARDS, "POST"),
        ("OPTIONS", REFEREE, "POST"),
        ("POST", COUPON, "GET"),
    ],
)
def test_wrong_method_is_refused(sandbox, method, path, allowed):
    """The answer tells which methods there are (RFC 9110)."""
    reply = call(sandbox, new_token(sandbox), method, path)
    assert (reply.status, reply.headers["Allow"]) == (405, allowed)


# Rate limits


@freeze_time("2026-03-01 12:00:00")
def test_every_answer_of_the_api_tells_the_rate_limit(connection):
    """Limit, what remains, and the seconds until the reset, whatever the status."""
    token = new_token(connection)
    statuses = {
        200: call(connection, token, "POST", CUSTOMERS, {"identifiers": [ADA]}),
        400: call(connection, token, "POST", CUSTOMERS, b""),
        405: call(connection, token, "PUT", CUSTOMERS),
    }
    assert {status: reply.status for status, reply in statuses.items()} == {status: status for status in statuses}
    assert [reply.limits for reply in statuses.values()] == [
        ("300", "299", "300"),
        ("300", "298", "300"),
        ("300", "297", "300"),
    ]
    assert call(connection, token, "GET", f"{API}/nowhere").limits == ("300", "299", "300")
    assert call(connection, "unknown", "POST", CUSTOMERS).limits == ("300", "299", "300")


def test_token_endpoint_has_no_rate_limit(sandbox):
    """The limits are documented for the Merchant API alone."""
    reply = ask_for_token(sandbox)
    assert not [name for name in reply.headers if name.lower().startswith("x-ratelimit")]


def test_spent_rate_limit_is_a_429_until_the_window_ends():
    """The window starts with the first request and lasts five minutes."""
    with freeze_time("2026-03-01 12:00:00") as clock, Sandbox(rate_limit=2) as sandbox:
        token = new_token(sandbox)
        assert call(sandbox, token).limits == ("2", "1", "300")
        clock.tick(299.5)
        assert call(sandbox, token).limits == ("2", "0", "1")
        for _ in range(2):
            reply = call(sandbox, token)
            assert (reply.status, reply.limits) == (429, ("2", "0", "1"))
            assert reply.json == {"code": "429", "message": "Rate limit exceeded."}
        clock.tick(0.5)
        reply = call(sandbox, token)
        assert (reply.status, reply.limits) == (200, ("2", "1", "300"))


def test_clock_that_is_set_back_starts_a_new_window():
    """A reset further away than five minutes would be none that is documented."""
    with freeze_time("2026-03-01 12:00:00") as clock, Sandbox(rate_limit=1) as sandbox:
        token = new_token(sandbox)
        call(sandbox, token)
        clock.move_to("2026-03-01 11:00:00")
        assert call(sandbox, token).limits == ("1", "0", "300")


def test_groups_have_limits_of_their_own(sandbox):
    """Customers share one; rewards, referee and coupons have each another."""
    token = new_token(sandbox)
    replies = {name: call(sandbox, token, *ENDPOINTS[name]) for name in ENDPOINTS}
    assert {name: reply.limits[1] for name, reply in replies.items()} == {
        "get customers": "299",
        "purge customers": "298",
        "lapse customers": "297",
        "get rewards": "299",
        "referee eligibility": "299",
        "validate coupon": "299",
    }


def test_tokens_have_limits_of_their_own():
    """The limit is documented to count by access token."""
    with Sandbox(rate_limit=1) as sandbox:
        assert [call(sandbox, new_token(sandbox)).status for _ in range(2)] == [200, 200]


def test_rejected_requests_count_but_stay_rejections():
    """A 401 spends the limit of its token, and never turns into a 429."""
    with Sandbox(rate_limit=1) as sandbox:
        token = new_token(sandbox)
        sandbox.revoke()
        replies = [call(sandbox, token) for _ in range(2)]
        assert [(reply.status, reply.limits[1]) for reply in replies] == [(401, "0")] * 2


def test_concurrent_requests_spend_the_limit_exactly():
    """Of 16 threads at once, as many are served as the limit allows."""
    barrier = threading.Barrier(16)
    statuses = []
    with Sandbox(rate_limit=10) as sandbox:
        token = new_token(sandbox)

        def work():
            barrier.wait(10)
            statuses.append(call(sandbox, token).status)

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert sorted(statuses) == [200] * 10 + [429] * 6


# HTTP


def test_connection_stays_usable_whatever_was_asked(sandbox, connection):
    """Bodies are read to their end, answers have a length: one connection does it all."""
    token = new_token(connection)
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        for path in (TOKEN, COUPON, CUSTOMERS, "/nowhere"):
            reply = call(connection, token, method, path, b"x" * 70_000)
            assert reply.headers["Content-Length"]
    assert call(connection, token).status == 200
    assert sandbox.connections == 1


def test_head_is_a_get_without_the_body(connection):
    """The headers are those of the GET."""
    token = new_token(connection)
    get, head = (call(connection, token, method) for method in ("GET", "HEAD"))
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"] == str(len(get.body))


def test_chunked_body_is_read_whole(sandbox):
    """Extensions and trailers are passed over, and the next request on the connection is found."""
    head = b"POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"5;name=value\r\nHello\r\nB \r\n, chunks\r\n.\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n"
    last = b"GET /second HTTP/1.1\r\nConnection: close\r\n\r\n"
    answers = exchange(sandbox, head, chunks, last)
    assert answers.count(b"HTTP/1.1 404 Not Found\r\n") == 2
    first, second = sandbox.requests
    assert (first.path, first.body) == ("/first", b"Hello, chunks\r\n.")
    assert (second.path, second.body) == ("/second", b"")


def test_requests_can_send_a_generator(sandbox):
    """A client library with chunked bodies is served like any other."""
    body = json.dumps({"identifiers": [ADA]}).encode()
    headers = {"Authorization": f"Bearer {new_token(sandbox)}"}
    with requests.Session() as session:
        response = session.post(sandbox.url + CUSTOMERS, data=iter([body[:9], body[9:]]), headers=headers, timeout=10)
    assert response.status_code == 200
    assert sandbox.requests[-1].body == body


@pytest.mark.parametrize(
    ("framing", "status"),
    [
        (b"Content-Length: -1\r\n\r\n", 400),
        (b"Content-Length: 1_0\r\n\r\n", 400),
        (b"Content-Length: a\r\n\r\n", 400),
        (b"Content-Length: \r\n\r\n", 400),
        (b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n", 400),
        (b"Content-Length: 8388609\r\n\r\n", 413),
        (b"Transfer-Encoding: gzip\r\n\r\n{}\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n800000\r\n", 413),
    ],
    ids=[
        *("negative", "underscore", "letter", "empty", "endless", "too large", "no chunks"),
        *("prefixed chunk", "negative chunk", "no chunk size", "long chunk", "large chunks"),
    ],
)
def test_body_without_a_usable_length_ends_the_connection(sandbox, framing, status):
    """Where the next request would start is not known; nothing of it is counted."""
    answer = exchange(sandbox, b"POST /api/oauth/token HTTP/1.1\r\n" + framing)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close" in head
    assert json.loads(body)["code"] == str(status)
    assert (sandbox.token_requests, sandbox.requests) == (0, ())


def test_body_of_8_mib_is_not_too_large(sandbox):
    """The limit itself is allowed."""
    assert ask(sandbox, "POST", "/", b"x" * 8_388_608).status == 404
    assert len(sandbox.requests[0].body) == 8_388_608


@pytest.mark.parametrize(
    ("request_line", "status"),
    [(b'nonsense "quoted"', 400), (b"BREW / HTTP/1.1", 501), (b"GET / HTTP/9.9", 505)],
    ids=["unreadable", "unknown method", "unknown version"],
)
def test_request_that_is_no_http_gets_a_json_error(sandbox, request_line, status):
    """Also what never becomes a request is answered in the documented shape."""
    answer = exchange(sandbox, request_line + b"\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nContent-Type: application/json\r\n" in head
    assert json.loads(body)["code"] == str(status)
    assert sandbox.requests == ()


def test_old_client_gets_its_connection_closed(sandbox):
    """HTTP/1.0 has no keep-alive by default, and is told so."""
    answer = exchange(sandbox, b"GET / HTTP/1.0\r\n\r\n")
    assert b"\r\nConnection: close\r\n" in answer


def test_client_that_waits_for_the_go_ahead_gets_it(sandbox):
    """`Expect: 100-continue` is answered before the body is read."""
    with socket.create_connection(("127.0.0.1", port_of(sandbox)), timeout=10) as client:
        client.sendall(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert client.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"{}")
        assert client.recv(65_536).startswith(b"HTTP/1.1 404 ")


# What it saw


def test_requests_are_recorded_as_they_were_sent(sandbox):
    """Method, target, headers, body, token and status."""
    token = new_token(sandbox)
    headers = {"Authorization": f"Bearer {token}", "X-Custom": "a"}
    ask(sandbox, "POST", f"{COUPON}%20?a=%20b", b"content", headers)
    first, second = sandbox.requests
    assert (first.method, first.path, first.status) == ("POST", TOKEN, 200)
    assert first.token is None
    assert json.loads(first.body)["client_id"] == "sandbox-id"
    assert second == SeenRequest("POST", f"{COUPON}%20?a=%20b", second.headers, b"content", token, 405)
    assert second.headers["x-custom"] == "a"
    assert second.headers["host"] == sandbox.url.partition("//")[2]


def test_repeated_headers_are_joined(sandbox):
    """As RFC 9110 allows it."""
    exchange(sandbox, b"GET / HTTP/1.1\r\nA: 1\r\na: 2\r\nConnection: close\r\n\r\n")
    assert sandbox.requests[0].headers == {"a": "1, 2", "connection": "close"}


def test_record_can_be_shown_but_not_changed(sandbox):
    """Its repr has nothing that may be secret."""
    call(sandbox, new_token(sandbox))
    first, second = sandbox.requests
    assert repr(first) == "SeenRequest(method='POST', path='/api/oauth/token', status=200)"
    assert sandbox.tokens[0] not in repr(second)
    with pytest.raises(AttributeError):
        first.status = 500
    with pytest.raises(TypeError):
        first.headers["a"] = "b"


def test_only_the_newest_requests_are_kept(monkeypatch):
    """Memory is bounded; the counters count on."""
    monkeypatch.setattr(module, "_KEPT", 2)
    with Sandbox() as sandbox:
        for path in ("/1", "/2", "/3"):
            ask(sandbox, "GET", path)
        assert [seen.path for seen in sandbox.requests] == ["/2", "/3"]
        assert sandbox.api_requests == 3


def test_newest_1000_are_kept():
    """The number is a promise."""
    assert module._KEPT == 1_000


def test_connections_are_counted(sandbox, connection):
    """One for two requests on the same, one for another; none before the start."""
    assert Sandbox().connections == 0
    ask_for_token(connection)
    ask_for_token(connection)
    assert sandbox.connections == 1
    ask_for_token(sandbox)
    assert sandbox.connections == 2


# Faults


@SIDES
def test_fault_answers_with_a_status(sandbox, connection, side):
    """The error has the documented shape, and the connection goes on."""
    usual = ask_side(connection, side).status
    fail(sandbox, side, status=503)
    reply = ask_side(connection, side)
    assert reply.status == 503
    assert reply.json["code"] == "503"
    assert "told" in reply.json["message"]
    assert ask_side(connection, side).status == usual
    assert sandbox.connections == 1


@SIDES
def test_fault_meets_its_own_side_only(sandbox, side):
    """Token requests and API requests go wrong apart from each other."""
    fail(sandbox, "api" if side == "token" else "token", status=503)
    assert ask_side(sandbox, side).status != 503


@pytest.mark.parametrize("body", ["<h1>é</h1>", "<h1>é</h1>".encode()], ids=["str", "bytes"])
def test_fault_answers_with_headers_and_a_body(sandbox, body):
    """Headers take the place of the usual ones, whatever their case."""
    headers = {"Retry-After": "7", "content-type": "text/html", "DATE": "yesterday"}
    sandbox.fail_token_requests(status=502, headers=headers, body=body)
    headers["Retry-After"] = "8"  # too late
    reply = ask_for_token(sandbox)
    assert (reply.status, reply.body) == (502, "<h1>é</h1>".encode())
    assert reply.headers.get_all("Retry-After") == ["7"]
    assert reply.headers.get_all("Content-Type") == ["text/html"]
    assert reply.headers.get_all("Date") == ["yesterday"]
    assert reply.headers.get_all("Content-Length") == ["11"]


def test_fault_can_be_an_empty_body(sandbox):
    """Nothing is what was asked for."""
    sandbox.fail_token_requests(status=200, body="")
    reply = ask_for_token(sandbox)
    assert (reply.status, reply.body) == (200, b"")


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_a_body_has_none(sandbox, connection, status):
    """RFC 9110 forbids it; the next answer is not taken for one."""
    sandbox.fail_api_requests(status=status, body="lost")
    reply = ask_side(connection, "api")
    assert (reply.status, reply.body) == (status, b"")
    assert reply.headers["Content-Length"] is None
    assert ask_side(connection, "api").status == 401


@SIDES
def test_faults_are_met_in_the_order_they_were_asked_for(sandbox, side):
    """Each as many times as it says; then all is well."""
    fail(sandbox, side, 2, status=500)
    fail(sandbox, side, status=429)
    statuses = [ask_side(sandbox, side).status for _ in range(4)]
    assert statuses[:3] == [500, 500, 429]
    assert statuses[3] in (200, 401)


def test_faults_can_be_cleared(sandbox):
    """Both sides are well again."""
    sandbox.fail_token_requests(5, status=500)
    sandbox.fail_api_requests(5, status=500)
    assert ask_for_token(sandbox).status == 500
    sandbox.clear_faults()
    assert call(sandbox, new_token(sandbox)).status == 200


@SIDES
def test_delayed_request_is_served_as_usual(sandbox, side):
    """The answer takes its time, and is the one it would have been."""
    usual = ask_side(sandbox, side).status
    fail(sandbox, side, delay=0.05)
    started = time.monotonic()
    assert ask_side(sandbox, side).status == usual
    assert time.monotonic() - started >= 0.05


def test_delay_goes_with_other_faults(sandbox):
    """First the wait, then the answer."""
    sandbox.fail_token_requests(status=500, delay=0.05)
    started = time.monotonic()
    assert ask_for_token(sandbox).status == 500
    assert time.monotonic() - started >= 0.05


@SIDES
def test_reset_is_a_reset(sandbox, side):
    """The client sees ECONNRESET, not an end of the stream."""
    fail(sandbox, side, reset=True)
    with pytest.raises(ConnectionResetError) as error:
        ask_side(sandbox, side)
    assert not isinstance(error.value, http.client.RemoteDisconnected)
    assert sandbox.requests[0].status is None


@SIDES
def test_garbage_is_no_http(sandbox, side):
    """The client can't read the answer, and the connection ends."""
    fail(sandbox, side, garbage=True)
    with pytest.raises(http.client.BadStatusLine) as error:
        ask_side(sandbox, side)
    assert not isinstance(error.value, http.client.RemoteDisconnected)
    fail(sandbox, side, garbage=True)
    request = b"GET /api/oauth/token HTTP/1.1\r\n\r\n" if side == "token" else b"GET / HTTP/1.1\r\n\r\n"
    assert b"HTTP/" not in exchange(sandbox, request)
    assert [seen.status for seen in sandbox.requests] == [None, None]


def test_faults_are_counted_and_recorded(sandbox):
    """They reach the counters of their side; a 401 of the API is a rejection."""
    token = new_token(sandbox)
    sandbox.fail_token_requests(status=401)
    sandbox.fail_api_requests(status=401)
    ask_for_token(sandbox)
    assert sandbox.rejections == 0
    call(sandbox, token)
    assert (sandbox.token_requests, sandbox.api_requests, sandbox.rejections) == (2, 1, 1)
    assert [seen.status for seen in sandbox.requests] == [200, 401, 401]
    assert len(sandbox.tokens) == 1


def test_faults_spend_no_rate_limit(sandbox):
    """What goes wrong on the way did not reach the API."""
    token = new_token(sandbox)
    sandbox.fail_api_requests(status=500)
    assert "X-RateLimit-Limit" not in call(sandbox, token).headers
    assert call(sandbox, token).limits[1] == "299"
