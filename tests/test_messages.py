"""Every message of the library in one table, to be read aloud: by whom a traceback or a log is read at 3 a.m.

    python tests/test_messages.py      prints the table

What the token endpoint's answers lead to stands in the table of `test_token_request.py`, which has more of them.
"""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import requests
from freezegun import freeze_time
from in_memory import STALE, Answer, TokenEndpoint, auth_with, session_with
from stores import Failing

from requests_mentionme import Environment, MentionMeAuth

API = "https://demo.mention-me.com/api/x"
ID = "MENTIONME_CLIENT_ID"
SECRET = "MENTIONME_CLIENT_SECRET"
Messages = dict[str, Callable[[], object]]


def with_option(**options: Any) -> Callable[[], object]:
    """Return how to make an auth with these options."""
    return lambda: MentionMeAuth("an-id", "a-secret", **options)


def with_variables(**variables: str) -> Callable[[], object]:
    """Return how to make an auth from these environment variables alone."""

    def make() -> object:
        with pytest.MonkeyPatch.context() as patch:
            for name in (ID, SECRET, "MENTIONME_ENVIRONMENT"):
                patch.delenv(name, raising=False)
            for name, value in variables.items():
                patch.setenv(name, value)
            return MentionMeAuth.from_env()

    return make


def get(url: str, auth: MentionMeAuth, status: int = 401) -> object:
    """Send a request to an API that answers with this status."""
    return session_with(TokenEndpoint(*[Answer(status)] * 2)).get(url, auth=auth)


def renew_early(auth: MentionMeAuth) -> object:
    """Ask for a token while the one in hand is stale."""
    with freeze_time("2026-01-01T12:00:00Z") as clock:
        auth.access_token()
        clock.tick(STALE)
        return auth.access_token()


def from_provider(provided: object) -> object:
    """Ask for a token whose credentials come from a provider that returns this."""
    return MentionMeAuth.from_provider(lambda: provided).access_token()  # type: ignore[arg-type,return-value]


ERRORS: Messages = {
    "client_id must be a non-empty string": lambda: MentionMeAuth("", "a-secret"),
    "client_secret must be a non-empty string": lambda: MentionMeAuth("an-id", ""),
    "environment must be an Environment, a name or a base URL": with_option(environment=None),
    "environment must be 'production' or 'demo', or a base URL such as 'https://host.example'": with_option(
        environment="staging"
    ),
    "a URL such as 'https://host.example' is needed, without user info or odd characters": with_option(
        environment="https://user:password@host.example"
    ),
    "an origin or a base URL ends after the host and port: it has no path, query or fragment": with_option(
        environment="https://host.example/api"
    ),
    "plain http is for this machine only: use https for host.example": with_option(environment="http://host.example"),
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
    "the environment variable MENTIONME_ENVIRONMENT is of no use: environment must be 'production' or 'demo', "
    "or a base URL such as 'https://host.example'. Set it, for example: "
    "export MENTIONME_ENVIRONMENT=demo": with_variables(
        **{ID: "an-id", SECRET: "a-secret", "MENTIONME_ENVIRONMENT": "test"}
    ),
    "provider must be callable": lambda: MentionMeAuth.from_provider(("an-id", "a-secret")),  # type: ignore[arg-type]
    "the provider of credentials must return a tuple: (client_id, client_secret)": lambda: from_provider(["an-id"]),
    "refused must be the token that was refused, as a string": lambda: auth_with(TokenEndpoint()).access_token(
        refused=b"token"  # type: ignore[arg-type]
    ),
}
WARNINGS: Messages = {
    "No token for https://mention-me.com: the environment demo covers https://api-demo.mention-me.com and "
    "https://demo.mention-me.com alone. Was environment='production' meant?": lambda: get(
        "https://mention-me.com/api", auth_with(TokenEndpoint())
    ),
    "Renewal failed. The token in hand still lives, and the next try is in 30 s at the earliest. dead": lambda: (
        renew_early(auth_with(TokenEndpoint("token-1", requests.ReadTimeout("dead"))))
    ),
    "A token straight from the endpoint was refused by https://demo.mention-me.com. Check the scopes and the "
    "environment of the API key. 401 answers are passed on for 30 s.": lambda: get(API, auth_with(TokenEndpoint())),
    "The token endpoint returned the very token that was refused. Does it cache tokens? Check the scopes and the "
    "environment of the API key. 401 answers are passed on for 30 s.": lambda: get(
        API, auth_with(TokenEndpoint("same", "same"))
    ),
    "The token store can't be read: OSError: 'No space left'": lambda: auth_with(
        TokenEndpoint(), store=Failing(OSError("No space left"), "read")
    ).access_token(),
}


@pytest.mark.parametrize("message", ERRORS)
def test_an_error_says_what_is_wrong_and_what_to_do(message):
    """To the letter, in one line."""
    with pytest.raises((TypeError, ValueError)) as raised:
        ERRORS[message]()
    assert str(raised.value) == message


@pytest.mark.parametrize("message", WARNINGS)
def test_a_warning_says_what_happened_and_what_to_check(message, caplog):
    """To the letter, in one line, once."""
    WARNINGS[message]()
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [message]


if __name__ == "__main__":
    print(*ERRORS, *WARNINGS, sep="\n")
