"""What a caller gets wrong is told at once: by its name and what it must be, and never by its value."""

import pytest

from requests_mentionme.sandbox import Sandbox

OPTIONS = [
    ("client_id client_secret env scope", None, "must be str, not NoneType"),
    ("merchant_id rate_limit port", "7", "must be int, not str"),
    ("lifetime rate_window", True, "must be int or float, not bool"),
    *(("lifetime rate_window", value, "must be from 0.001 to 1000000000.0") for value in (0, float("nan"))),
    ("merchant_id", -1, "must be 0 or more"),
    ("rate_limit", 0, "must be 1 or more"),
    ("port", 65_536, "must be from 0 to 65535"),
]
OTHERS = [
    ("add_client", ["sandbox-id", "s"], "there is a client 'sandbox-id' already"),
    ("add_client", ["", "s"], "the length of client_id must be 1 or more"),
    ("add_client", ["i", ""], "the length of client_secret must be 1 or more"),
    ("add_client", ["i", "s", 1], "scope must be str, not int"),
    ("remove_client", ["nobody"], "there is no client 'nobody'"),
    ("__setattr__", ["lifetime", "1"], "lifetime must be int or float, not str"),
    ("revoke", ["hush"], "this sandbox knows no such token"),
]
FAULTS = [
    ({}, "ask for a status, a delay, a reset or garbage"),
    ({"status": 500, "reset": True}, "status, reset and garbage exclude each other"),
    ({"reset": True, "garbage": True}, "status, reset and garbage exclude each other"),
    ({"delay": 1, "headers": {"A": "b"}}, "headers and body need a status"),
    ({"reset": True, "body": ""}, "headers and body need a status"),
    ({"times": 0, "reset": True}, "times must be 1 or more"),
    ({"status": 199}, "status must be from 200 to 599"),
    ({"delay": -0.1}, "delay must be from 0 to 1000000.0"),
    *(({"status": 500, "headers": {name: "a"}}, f"no header can be like {name!r}") for name in ["", "A b"]),
    *(({"status": 500, "headers": {"A": text}}, "no header can be like 'A'") for text in ["é", "b\r\nC: d"]),
    ({"status": "500"}, "status must be int, not str"),
    ({"status": 500, "body": {}}, "body must be str or bytes, not dict"),
    *(({"status": 500, "headers": headers}, "header must be str, not int") for headers in [{1: ""}, {"A": 1}]),
]
CALLS = [
    *(("new", {name: value}, f"{name} {error}") for names, value, error in OPTIONS for name in names.split()),
    *OTHERS,
    *(("fail", *fault) for fault in FAULTS),
]


@pytest.mark.parametrize(("method", "arguments", "message"), CALLS)
def test_call_that_makes_no_sense_is_refused_and_changes_nothing(client, method, arguments, message):
    several = {"new": [Sandbox], "fail": [client.sandbox.fail_token_requests, client.sandbox.fail_api_requests]}
    for call in several.get(method) or [getattr(client.sandbox, method)]:
        with pytest.raises(TypeError if ", not " in message else ValueError) as raised:
            call(**arguments) if isinstance(arguments, dict) else call(*arguments)
        assert str(raised.value) == message
    assert client.call(client.new_token()).status == 200
