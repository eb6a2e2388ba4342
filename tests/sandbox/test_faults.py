"""Faults on request: which requests they meet, and what a client sees of them."""

import http.client
import time

import pytest

API = "/api/merchant/v2/customers"


def test_faults_meet_their_own_side_in_their_order_as_often_as_they_say_and_are_counted(client):
    sandbox = client.sandbox
    sandbox.fail_token_requests(2, status=500)
    sandbox.fail_token_requests(status=401)
    sandbox.fail_api_requests(status=503)
    sandbox.fail_api_requests(2, status=401)
    statuses = [ask().status for ask in [client.ask_for_token] * 4 + [lambda: client.ask("GET", API)] * 4]
    assert statuses == [seen.status for seen in sandbox.requests] == [500, 500, 401, 200, 503, 401, 401, 401]
    counts = (sandbox.token_requests, sandbox.api_requests, sandbox.rejections, len(sandbox.tokens))
    assert counts == (4, 4, 3, 1)  # a 401 that is a fault of the API is a rejection, too
    sandbox.fail_token_requests(status=500)
    sandbox.fail_api_requests(status=500)
    sandbox.clear_faults()
    assert (client.call(client.new_token()).status, sandbox.connections) == (200, 1)


@pytest.mark.parametrize(
    ("status", "body", "sent"),
    [
        (502, "é", "é".encode()),
        (502, "", b""),
        (502, b"\xff", b"\xff"),
        *((status, "lost", b"") for status in (204, 304)),
        (502, None, b'{"code": "502", "message": "The sandbox was told to answer this."}'),
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


def test_delay_comes_before_the_answer_and_ends_without_one_when_the_sandbox_stops(client, start):
    for status in (None, 500):
        client.sandbox.fail_api_requests(status=status, delay=0.05)
        started = time.monotonic()
        assert client.ask("GET", API).status == (status or 401)
        assert time.monotonic() - started >= 0.05
    client.sandbox.fail_token_requests(delay=600)
    asked = start(client.ask_for_token)
    while client.sandbox.token_requests == 0:
        assert not asked.done()
    client.sandbox.stop()
    assert isinstance(asked.exception(10), ConnectionError)
    assert [seen.status for seen in client.sandbox.requests] == [401, 500, None]


@pytest.mark.parametrize(("fault", "error"), [("reset", ConnectionResetError), ("garbage", http.client.BadStatusLine)])
def test_connection_can_be_cut_by_a_reset_or_after_an_answer_that_no_client_can_read(client, fault, error):
    client.sandbox.fail_token_requests(**{fault: True})
    client.sandbox.fail_api_requests(**{fault: True})
    for ask in (client.ask_for_token, lambda: client.ask("GET", API)):
        with pytest.raises(error) as raised:
            ask()
        assert not isinstance(raised.value, http.client.RemoteDisconnected)  # which is of both kinds
    assert [seen.status for seen in client.sandbox.requests] == [None, None]
