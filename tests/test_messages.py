"""Every message of the library in one table, to be read aloud: `python tests/test_messages.py` prints it.

What the token endpoint's answers lead to stands in the table of `test_token_request.py`, which has more of them.
"""

import os
from unittest import mock

import pytest
import requests
from freezegun import freeze_time
from in_memory import API, STALE, Answer, TokenEndpoint, auth_with, session_with, warnings
from stores import Failing

from requests_mentionme import Environment, MentionMeAuth

ID = "MENTIONME_CLIENT_ID"
SECRET = "MENTIONME_CLIENT_SECRET"


def with_option(**options):
    return lambda: MentionMeAuth("an-id", "a-secret", **options)


def with_variables(**variables):
    return mock.patch.dict(os.environ, variables)(MentionMeAuth.from_env)


def get(*script, url=API, body=None):
    """Return how to send a request to an API that refuses it, with such a script of the token endpoint."""
    api = session_with(TokenEndpoint(*[Answer(401)] * 2))
    return lambda: api.post(url, data=body, auth=auth_with(TokenEndpoint(*script)))


def replace_twice():
    auth = auth_with(TokenEndpoint())
    return auth.access_token(refused=auth.access_token(refused=auth.access_token()))


def renew_early():
    auth = auth_with(TokenEndpoint("token-1", requests.ReadTimeout("dead")))
    with freeze_time("2026-01-01T12:00:00Z") as clock:
        auth.access_token()
        clock.tick(STALE)
        return auth.access_token()


ENVIRONMENTS = {
    "environment must be an Environment, a name or a base URL": None,
    "environment must be 'production' or 'demo', or a base URL such as 'https://host.example'": "staging",
    "a URL such as 'https://host.example' is needed, without user info or odd characters": "https://user:pw@host",
    "an origin or a base URL ends after the host and port: it has no path, query or fragment": "https://host/api",
    "plain http is for this machine only: use https for host.example": "http://host.example",
    "a port is at most 65535": "https://host.example:65536",
}
ERRORS = {
    "client_id must be a non-empty string": lambda: MentionMeAuth("", "a-secret"),
    "client_secret must be a non-empty string": lambda: MentionMeAuth("an-id", ""),
    **{message: with_option(environment=environment) for message, environment in ENVIRONMENTS.items()},
    "a token URL has no spaces, control characters or characters beyond ASCII": lambda: Environment(
        "mine", "https://host.example/t oken", ["https://host.example"]
    ),
    "a URL must be a string": lambda: Environment("mine", b"https://host.example/token", ["https://host.example"]),
    "the name of an environment must be a string": lambda: Environment(None, "https://h.example", []),
    "an environment needs at least one origin": lambda: Environment("mine", "https://host.example/token", []),
    "session must be a requests.Session or None": with_option(session=requests),
    "timeout must be a number of seconds, or a pair of them as a tuple: (connect, read)": with_option(timeout=[5, 10]),
    "timeout must be 0.001 to 86400 seconds": with_option(timeout=None),
    "refresh_margin must be a number of seconds": with_option(refresh_margin="300"),
    "refresh_margin must be 0 to 86400 seconds": with_option(refresh_margin=-1),
    "store must be a dict, or an object with store[key], store[key] = text and del store[key], "
    "and not a str": with_option(store="file.json"),
    f"the environment variable {ID} is not set. Set it: export {ID}=...": with_variables(),
    f"the environment variable {SECRET} is not set. Set it: export {SECRET}=...": with_variables(**{ID: "an-id"}),
    "the environment variable MENTIONME_ENVIRONMENT is of no use: environment must be 'production' or 'demo', or a "
    "base URL such as 'https://host.example'. Set it, for example: export MENTIONME_ENVIRONMENT=demo": with_variables(
        **{ID: "an-id", SECRET: "a-secret", "MENTIONME_ENVIRONMENT": "test"}
    ),
    "provider must be callable": lambda: MentionMeAuth.from_provider(("an-id", "a-secret")),
    "the provider of credentials must return a tuple: (client_id, client_secret)": lambda: MentionMeAuth.from_provider(
        lambda: ["an-id"]
    ).access_token(),
    "refused must be the token that was refused, as a string": lambda: auth_with(None).access_token(refused=b"token"),
}
CHECK = "Check the scopes and the environment of the API key. 401 answers are passed on for 30 s."
WARNINGS = {
    "No token for https://mention-me.com: the environment demo covers https://api-demo.mention-me.com and "
    "https://demo.mention-me.com alone. Was environment='production' meant?": get(url="https://mention-me.com/api"),
    "Renewal failed. The token in hand still lives, and the next try is in 30 s at the earliest. dead": renew_early,
    "Renewal after a 401 failed: dead": get("token-1", requests.ReadTimeout("dead"), body=iter([b"data"])),
    f"A token straight from the endpoint was refused by https://demo.mention-me.com. {CHECK}": get(),
    f"A token straight from the token endpoint was refused as well. {CHECK}": replace_twice,
    "The token endpoint returned the very token that was refused. Does it cache tokens? " + CHECK: get("same", "same"),
    "The token store can't be read: OSError: 'No space left'": lambda: auth_with(
        TokenEndpoint(), store=Failing(OSError("No space left"), "read")
    ).access_token(),
}


@pytest.mark.parametrize("message", ERRORS)
def test_an_error_says_what_is_wrong_and_what_to_do(message):
    with pytest.raises((TypeError, ValueError)) as raised:
        ERRORS[message]()
    assert str(raised.value) == message


@pytest.mark.parametrize("message", WARNINGS)
def test_a_warning_says_what_happened_and_what_to_check_and_says_it_once(message, caplog):
    WARNINGS[message]()
    assert warnings(caplog) == [message]


if __name__ == "__main__":
    print(*ERRORS, *WARNINGS, sep="\n")
