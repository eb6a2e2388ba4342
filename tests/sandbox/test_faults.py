"""Faults on request: which requests they meet, and what a client sees of them."""

import http.client
import time

import pytest

SIDES = pytest.mark.parametrize(("side", "usual"), [("token", 200), ("api", 401)])


def fail(client, side, *args, **options):
    getattr(client.sandbox, f"fail_{side}_requests")(*args, **options)


def ask(client, side):
    """Ask one side, without a token. Without a fault, the API answers 401."""
    return client.ask_for_token() if side == "token" else client.ask("GET", "/api/merchant/v2/customers")


@SIDES
def test_faults_meet_their_own_side_in_their_order_as_often_as_they_say_and_are_counted(client, side, usual):
    sandbox = client.sandbox
    other = "api" if side == "token" else "token"
    fail(client, side, 2, status=500)
    fail(client, side, status=401)
    fail(client, other, 9, status=503)
    assert [ask(client, each).status for each in [side] * 4 + [other]] == [500, 500, 401, usual, 503]
    assert [seen.status for seen in sandbox.requests] == [500, 500, 401, usual, 503]
    expected = (4, 1, 0, 1) if side == "token" else (1, 4, 2, 0)  # a 401 of the API is a rejection, too
    assert (sandbox.token_requests, sandbox.api_requests, sandbox.rejections, len(sandbox.tokens)) == expected
    fail(client, side, status=500)
    sandbox.clear_faults()
    assert client.call(client.new_token()).status == 200
    assert sandbox.connections == 1


@pytest.mark.parametrize(
    ("status", "body", "sent"),
    [
        (502, "é", "é".encode()),
        (502, "", b""),
        (502, b"\xff", b"\xff"),
        (502, None, b'{"code": "502", "message": "The sandbox was told to answer this."}'),
        (204, "lost", b""),
        (304, "lost", b""),
    ],
)
def test_fault_answers_with_headers_that_replace_the_usual_ones_and_a_body(client, status, body, sent):
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
def test_delay_comes_before_the_answer_and_ends_without_one_when_the_sandbox_stops(client, start, side, usual):
    for status in (None, 500):
        fail(client, side, status=status, delay=0.05)
        started = time.monotonic()
        assert ask(client, side).status == (status or usual)
        assert time.monotonic() - started >= 0.05
    fail(client, side, delay=600)
    asked = start(ask, client, side)
    while client.sandbox.token_requests + client.sandbox.api_requests < 3:
        assert not asked.done()
    client.sandbox.stop()
    assert isinstance(asked.exception(10), ConnectionError)
    assert [seen.status for seen in client.sandbox.requests] == [usual, 500, None]


@SIDES
@pytest.mark.parametrize(
    ("fault", "error"), [("reset", ConnectionResetError), ("garbage", http.client.BadStatusLine)], ids=str
)
def test_connection_can_be_cut_by_a_reset_or_after_an_answer_that_no_client_can_read(client, side, usual, fault, error):
    fail(client, side, **{fault: True})
    with pytest.raises(error) as raised:
        ask(client, side)
    assert not isinstance(raised.value, http.client.RemoteDisconnected)  # which is of both kinds
    assert [seen.status for seen in client.sandbox.requests] == [None]
    fail(client, "api", garbage=True)
    assert b"HTTP/" not in client.exchange(b"GET / HTTP/1.1\r\n\r\n")
