"""The contestants: a floor, this library and its peers, each used as its own documentation says."""
# ruff: noqa: PLC0415 - imported where used, so that a new process loads one of them alone

import json
import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import cache
from typing import Any, NamedTuple

from requests import PreparedRequest, Response, Session
from requests.auth import AuthBase

os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"  # the token server is on loopback, without TLS
_WHO = {"client_id": "client-id", "client_secret": "client-secret"}


class Client(NamedTuple):
    """A contestant at work: its session, one request through it, and the step of that which attaches the token."""

    session: Session
    get: Callable[[str], Response]
    attach: Callable[[PreparedRequest], Any]


def _client_of(auth: AuthBase) -> Client:
    session = Session()
    session.auth = auth
    return Client(session, session.get, auth)


class _Floor(AuthBase):
    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = "Bearer token"
        request.register_hook("response", _see)
        return request


def _see(response: Response, **_: object) -> Response:
    return response


@cache  # one for all auth objects, as `PRODUCTION` is
def _environment(token_url: str) -> Any:
    from requests_mentionme import PRODUCTION, Environment

    return Environment("benchmark", token_url, PRODUCTION.origins)


def _mentionme(token_url: str) -> Client:
    from requests_mentionme import MentionMeAuth

    return _client_of(MentionMeAuth(**_WHO, environment=_environment(token_url)))


def _requests_auth(token_url: str) -> Client:
    from requests_auth import OAuth2, OAuth2ClientCredentials

    OAuth2.token_cache.clear()  # it is one for the whole process
    return _client_of(OAuth2ClientCredentials(token_url, **_WHO))


def _requests_oauth2client(token_url: str) -> Client:
    from requests_oauth2client import OAuth2Client, OAuth2ClientCredentialsAuth

    client = OAuth2Client(token_url, **_WHO, testing=True)  # so that plain http will do
    return _client_of(OAuth2ClientCredentialsAuth(client))


def _authlib(token_url: str) -> Client:
    from authlib.integrations.requests_client import OAuth2Session

    session = OAuth2Session(**_WHO, token_endpoint=token_url, grant_type="client_credentials")

    def get(url: str) -> Response:
        if not session.token:
            session.fetch_token()
        return session.get(url)

    return Client(session, get, session.token_auth)


def _requests_oauthlib(token_url: str) -> Client:
    from oauthlib.oauth2 import BackendApplicationClient, TokenExpiredError
    from requests_oauthlib import OAuth2Session

    client = BackendApplicationClient(client_id=_WHO["client_id"])
    session = OAuth2Session(client=client)

    def get(url: str) -> Response:
        if session.token:
            try:
                return session.get(url)
            except TokenExpiredError:
                pass
        session.fetch_token(token_url, **_WHO)
        return session.get(url)

    return Client(session, get, lambda r: client.add_token(r.url, r.method, body=None, headers=r.headers))


def _google_auth(token_url: str) -> Client:
    from google.auth.credentials import Credentials
    from google.auth.transport.requests import AuthorizedSession, Request

    class ClientCredentials(Credentials):
        def refresh(self, request: Request) -> None:
            answer = json.loads(request(token_url, method="POST", body=json.dumps(_WHO)).data)
            self.token = answer["access_token"]
            self.expiry = datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(seconds=answer["expires_in"])

    credentials = ClientCredentials()
    refresher = Request()
    session = AuthorizedSession(credentials)
    return Client(session, session.get, lambda r: credentials.before_request(refresher, r.method, r.url, r.headers))


class Contestant(NamedTuple):
    """What to import, how to set it up, and a lifetime that makes a token fall due after so many seconds."""

    module: str
    connect: Callable[[str], Client]
    lifetime: int
    due: float = 2.0


FLOOR = "floor"
OURS = "requests-mentionme"
CONTESTANTS = {
    FLOOR: Contestant("requests", lambda _: _client_of(_Floor()), 0),
    OURS: Contestant("requests_mentionme", _mentionme, 8, due=6.4),
    "requests-auth": Contestant("requests_auth", _requests_auth, 2 + 30),  # 30 s is its default margin, and so on
    "requests-oauth2client": Contestant("requests_oauth2client", _requests_oauth2client, 2 + 20),
    "Authlib": Contestant("authlib.integrations.requests_client", _authlib, 2 + 60),
    "requests-oauthlib": Contestant("requests_oauthlib", _requests_oauthlib, 2),
    "google-auth": Contestant("google.auth.transport.requests", _google_auth, 2 + 225),
}
