"""Faults on request: which requests they meet, and what a client sees of them."""

import http.client
import time

import pytest

SIDES = pytest.mark.parametrize(("side", "usual"), [("token", 200), ("api", 401)])
TOLD = b'{"code": "502", "message": "The sandbox was told to answer this."}'
EXCLUDING = ({"status": 500, "reset": True}, {"status": 500, "garbage": True}, {"reset": True, "garbage": True})


def fail(client, side, *args, **options):
    """Ask for a fault on one side."""
    getattr(client.sandbox, f"fail_{side}_requests")(*args, **options)


def ask(client, side):
    """Ask one side, without a token. Without a fault, the API answers 401."""
    return client.ask_for_token() if side == "token" else client.ask("GET", "/api/merchant/v2/customers")


@SIDES
def test_faults_meet_their_own_side_in_their_order(client, side, usual):
    """Each acts as many times as it says. It is counted and recorded; a 401 of the API is a rejection, too."""
    other = "api" if side == "token" else "token"
    fail(client, side, 2, status=500)
    fail(client, side, status=401)
    fail(client, other, 9, status=503)
    assert [ask(client, side).status for _ in range(4)] == [500, 500, 401, usual]
    assert ask(client, other).status == 503
    sandbox = client.sandbox
    expected = (4, 1, 0, 1) if side == "token" else (1, 4, 2, 0)
    assert (sandbox.token_requests, sandbox.api_requests, sandbox.rejections, len(sandbox.tokens)) == expected
    assert [seen.status for seen in sandbox.requests] == [500, 500, 401, usual, 503]
    fail(client, side, status=500)
    sandbox.clear_faults()
    assert client.call(client.new_token()).status == 200
    assert sandbox.connections == 1


@pytest.mark.parametrize(
    ("status", "body", "sent"),
    [
        (502, "é", "é".encode()),
        (502, b"\xff", b"\xff"),
        (502, "", b""),
        (502, None, TOLD),
        (204, "lost", b""),
        (304, "lost", b""),
    ],
)
def test_fault_answers_with_headers_and_a_body(client, status, body, sent):
    """Headers take the place of the usual ones, whatever their case. An empty body is a body, except to 204 and 304."""
    headers = {"Retry-After": "7", "content-type": "text/html", "DATE": "yesterday"}
    client.sandbox.fail_token_requests(status=status, headers=headers, body=body)
    headers["Retry-After"] = "8"  # too late
    reply = client.ask_for_token()
    assert (reply.status, reply.body) == (status, sent)
    names = ("Retry-After", "Content-Type", "Date", "Content-Length")
    length = None if status in (204, 304) else [str(len(sent))]  # RFC 9110 §8.6
    assert [reply.headers.get_all(name) for name in names] == [["7"], ["text/html"], ["yesterday"], length]
    assert (client.ask_for_token().status, client.sandbox.connections) == (200, 1)


@SIDES
@pytest.mark.parametrize("status", [None, 500], ids=["alone", "before a status"])
def test_delay_comes_before_all_else(client, side, usual, status):
    """Then comes the other fault, or else the usual answer."""
    fail(client, side, status=status, delay=0.05)
    started = time.monotonic()
    assert ask(client, side).status == status or usual
    assert time.monotonic() - started >= 0.05


@SIDES
@pytest.mark.parametrize("fault", ["reset", "garbage"])
def test_connection_can_be_cut(client, side, usual, fault):
    """A client sees ECONNRESET after a reset. Garbage is an answer that it can't read, and then the connection ends."""
    fail(client, side, **{fault: True})
    with pytest.raises(ConnectionResetError if fault == "reset" else http.client.BadStatusLine) as raised:
        ask(client, side)
    assert not isinstance(raised.value, http.client.RemoteDisconnected)  # which is of both kinds
    assert [seen.status for seen in client.sandbox.requests] == [None]
    client.sandbox.fail_api_requests(garbage=True)
    assert b"HTTP/" not in client.exchange(b"GET / HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "ask for a status, a delay, a reset or garbage"),
        *((options, "status, reset and garbage exclude each other") for options in EXCLUDING),
        ({"delay": 1, "headers": {"A": "b"}}, "headers and body need a status"),
        ({"reset": True, "body": ""}, "headers and body need a status"),
        ({"times": 0, "reset": True}, "times must be 1 or more"),
        *(({"delay": float(text)}, "delay must be from 0 to 1000000.0") for text in ("-0.1", "nan", "inf")),
        *(({"status": status}, "status must be from 200 to 599") for status in (199, 600)),
        *(({"status": 500, "headers": {name: "a"}}, f"no header can be like {name!r}") for name in ("", "A b")),
        *(({"status": 500, "headers": {"A": text}}, "no header can be like 'A'") for text in ("é", "b\r\nC: d")),
        ({"times": 1.0, "reset": True}, "times must be int, not float"),
        ({"times": True, "reset": True}, "times must be int, not bool"),
        ({"status": "500"}, "status must be int, not str"),
        ({"delay": "1"}, "delay must be int or float, not str"),
        ({"status": 500, "body": {}}, "body must be str or bytes, not dict"),
        *(({"status": 500, "headers": headers}, "header must be str, not int") for headers in ({1: ""}, {"A": 1})),
    ],
    ids=str,
)
def test_fault_that_makes_no_sense_is_refused_at_once(client, options, message):
    """The mistake is told to its author, and nothing goes wrong later."""
    for side in ("token", "api"):
        with pytest.raises(TypeError if ", not " in message else ValueError) as raised:
            fail(client, side, **options)
        assert str(raised.value) == message
    assert client.call(client.new_token()).status == 200
