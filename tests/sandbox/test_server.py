"""HTTP on the wire, and what the sandbox keeps of a request."""

import copy
import json
import pickle
import socket
import struct
import threading

import pytest

from requests_mentionme.sandbox import Sandbox, SeenRequest

POST = b"POST /api/oauth/token HTTP/1.1\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def test_connection_stays_usable_whatever_was_asked(client):
    token = client.new_token()
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        for path in ("/api/oauth/token", "coupons/validate/SAMPLE", "customers", "/nowhere"):
            assert client.call(token, method, path, b"x" * 70_000).headers["Content-Length"]
    get, head = (client.call(token, method) for method in ("GET", "HEAD"))
    assert (get.status, head.status, head.body) == (200, 200, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"] == str(len(get.body))
    assert client.ask("POST", "/", b"x" * 8_388_608).status == 404  # the largest body that is allowed
    assert (len(client.sandbox.requests[-1].body), client.sandbox.connections) == (8_388_608, 1)


def test_chunked_body_is_read_whole_after_a_go_ahead_and_without_its_extensions_and_trailers(client):
    head = b"POST /first HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    chunks = b"5;name=value\r\nHello\r\nB \r\n, chunks\r\n.\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n"
    answers = client.exchange(head + chunks + b"GET /second HTTP/1.0\r\n\r\n")
    assert answers.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 ")
    assert answers.count(b"HTTP/1.1 404 Not Found\r\n") == 2
    assert answers.count(b"\r\nConnection: close\r\n") == 1  # HTTP/1.0 does not keep connections by default
    seen = [(request.path, request.body) for request in client.sandbox.requests]
    assert seen == [("/first", b"Hello, chunks\r\n."), ("/second", b"")]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        *((POST + b"Content-Length: %b\r\n\r\n" % size, 400) for size in (b"-1", b"1_0", b"", b"9" * 5_000)),
        *((CHUNKED + start + b"\r\n0\r\n\r\n", 400) for start in (b"0x1\r\na", b"-1\r\na", b"\r\na", b"1\r\nab")),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n{}\r\n", 400),
        (b'nonsense "quoted"\r\n\r\n', 400),
        (POST + b"Content-Length: 8388609\r\n\r\n", 413),
        (CHUNKED + b"1\r\na\r\n800000\r\n", 413),
        (b"BREW / HTTP/1.1\r\n\r\n", 501),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_request_that_cannot_be_read_gets_a_json_error_and_ends_the_connection(client, capfd, request_bytes, status):
    head, _, body = client.exchange(request_bytes).partition(b"\r\n\r\n")
    for part in (b"HTTP/1.1 %d " % status, b"\r\nConnection: close", b"\r\nContent-Type: application/json"):
        assert part in head
    assert json.loads(body)["code"] == str(status)
    assert (client.sandbox.token_requests, client.sandbox.api_requests, client.sandbox.requests) == (0, 0, ())
    assert capfd.readouterr() == ("", "")


def test_client_that_leaves_in_the_middle_of_a_request_or_an_answer_makes_no_noise(client, capfd):
    client.sandbox.fail_api_requests(status=200, body=b"x" * 32_000_000)
    with socket.create_connection(client.address, timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(8) == b"HTTP/1.1"
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for rest in (b"Content-Length: 9\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n9\r\nhalf"):
        with socket.create_connection(client.address, timeout=10) as connection:
            connection.sendall(POST + rest)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
    client.sandbox.stop()
    assert (client.sandbox.token_requests, len(client.sandbox.requests)) == (0, 1)
    assert capfd.readouterr() == ("", "")


def test_mistake_of_the_sandbox_itself_is_shown_where_the_exceptions_of_threads_are(client, monkeypatch):
    shown = []  # by a hook that takes its time, for which `stop` has to wait
    monkeypatch.setattr(threading, "excepthook", lambda args: threading.Event().wait(0.05) or shown.append(args))
    monkeypatch.setattr("secrets.token_hex", lambda _: 1 / 0)
    with pytest.raises(ConnectionError):
        client.ask_for_token()
    client.sandbox.stop()
    assert [each.exc_type for each in shown] == [ZeroDivisionError]


def test_requests_are_recorded_as_they_were_sent_and_a_copy_of_a_record_is_equal_and_as_read_only(client):
    token = client.new_token()
    head = "POST /a%20?b=%20c HTTP/1.1\r\nA: 1\r\na: 2\r\nConnection: close\r\n"
    client.exchange(f"{head}Authorization: Bearer {token}\r\nContent-Length: 7\r\n\r\ncontent".encode())
    first, second = client.sandbox.requests
    assert (first.method, first.path, first.token, first.status) == ("POST", "/api/oauth/token", None, 200)
    assert first.headers["host"] == client.sandbox.url.partition("//")[2]
    assert json.loads(first.body)["client_id"] == "sandbox-id"
    headers = {"a": "1, 2", "connection": "close", "authorization": f"Bearer {token}", "content-length": "7"}
    assert second == SeenRequest("POST", "/a%20?b=%20c", headers, b"content", token, 404)
    assert repr(second) == "SeenRequest(method='POST', path='/a%20?b=%20c', status=404)"
    for record in (second, pickle.loads(pickle.dumps(second)), copy.copy(second), copy.deepcopy(second)):
        assert record == second != first
        assert {first, second, record} == {first, second}
        with pytest.raises(AttributeError):
            record.status = 500
        with pytest.raises(TypeError):
            record.headers["a"] = "b"
    assert SeenRequest.__module__ == Sandbox.__module__ == "requests_mentionme.sandbox"  # in pickles and tracebacks


def test_only_the_newest_thousand_requests_and_tokens_are_kept(client):
    tokens = [client.new_token() for _ in range(1_001)]
    assert client.sandbox.tokens == tuple(tokens[1:])
    assert [client.call(token).status for token in tokens[:2]] == [401, 200]
    assert [seen.token for seen in client.sandbox.requests] == [None] * 998 + tokens[:2]
    assert (client.sandbox.token_requests, client.sandbox.api_requests) == (1_001, 2)
