"""What a caller gets wrong is told at once: by its name and what it must be, and never by its value."""

import pytest

from requests_mentionme.sandbox import Sandbox


@pytest.mark.parametrize(
    ("names", "value", "error"),
    [
        ("client_id client_secret env scope", None, "must be str, not NoneType"),
        ("merchant_id rate_limit port", "7", "must be int, not str"),
        ("lifetime rate_window", True, "must be int or float, not bool"),
        ("lifetime rate_window", 0, "must be from 0.001 to 1000000000.0"),
        ("lifetime rate_window", float("nan"), "must be from 0.001 to 1000000000.0"),
        ("merchant_id", -1, "must be 0 or more"),
        ("rate_limit", 0, "must be 1 or more"),
        ("port", 65_536, "must be from 0 to 65535"),
    ],
)
def test_option_of_the_wrong_type_or_size_is_refused(names, value, error):
    for name in names.split():
        with pytest.raises(TypeError if ", not " in error else ValueError) as raised:
            Sandbox(**{name: value})
        assert str(raised.value) == f"{name} {error}"


KEYS = [
    ("add_client", ["sandbox-id", "s"], "there is a client 'sandbox-id' already"),
    ("add_client", ["", "s"], "the length of client_id must be 1 or more"),
    ("add_client", ["i", ""], "the length of client_secret must be 1 or more"),
    ("add_client", ["i", "s", 1], "scope must be str, not int"),
    ("remove_client", ["nobody"], "there is no client 'nobody'"),
    ("revoke", ["hush"], "this sandbox knows no such token"),
]
EXCLUDING = [{"status": 500, "reset": True}, {"status": 500, "garbage": True}, {"reset": True, "garbage": True}]
FAULTS = [
    ({}, "ask for a status, a delay, a reset or garbage"),
    *((options, "status, reset and garbage exclude each other") for options in EXCLUDING),
    ({"delay": 1, "headers": {"A": "b"}}, "headers and body need a status"),
    ({"reset": True, "body": ""}, "headers and body need a status"),
    ({"times": 0, "reset": True}, "times must be 1 or more"),
    ({"delay": -0.1}, "delay must be from 0 to 1000000.0"),
    ({"status": 199}, "status must be from 200 to 599"),
    *(({"status": 500, "headers": {name: "a"}}, f"no header can be like {name!r}") for name in ["", "A b"]),
    *(({"status": 500, "headers": {"A": text}}, "no header can be like 'A'") for text in ["é", "b\r\nC: d"]),
    ({"status": "500"}, "status must be int, not str"),
    ({"status": 500, "body": {}}, "body must be str or bytes, not dict"),
    *(({"status": 500, "headers": headers}, "header must be str, not int") for headers in [{1: ""}, {"A": 1}]),
]


@pytest.mark.parametrize(("method", "arguments", "message"), [*KEYS, *(("fail", *fault) for fault in FAULTS)])
def test_call_that_makes_no_sense_is_refused_and_changes_nothing(client, method, arguments, message):
    for name in ["fail_token_requests", "fail_api_requests"] if method == "fail" else [method]:
        call = getattr(client.sandbox, name)
        with pytest.raises(TypeError if ", not " in message else ValueError) as raised:
            call(**arguments) if isinstance(arguments, dict) else call(*arguments)
        assert str(raised.value) == message
    assert client.call(client.new_token()).status == 200
