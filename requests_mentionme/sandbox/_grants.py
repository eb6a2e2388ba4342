"""What the sandbox gives out: API keys, the tokens of these keys, and how many requests each token may send."""

import base64
import hmac
import json
import math
import secrets
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple

from requests_mentionme.sandbox._messages import Answer, RefusalError, Request, json_answer, member, parsed

KEPT_TOKENS = 1_000


class Admission(NamedTuple):
    """How a request of the Merchant API stands.

    Attributes:
        refusal: Why its token is refused; None for a good one.
        scopes: What its token is allowed to do.
        remaining: How many requests its rate limit leaves; less than 0 if this one is too many.
        headers: The headers that tell the rate limit.
    """

    refusal: str | None
    scopes: frozenset[str]
    remaining: int
    headers: Mapping[str, str]


class _Key(NamedTuple):
    secret: str
    scope: str


class _Window(NamedTuple):
    started_at: float
    spent: int


class _Grant:
    """What the sandbox knows of one token. The lock of `Grants` guards it."""

    def __init__(self, client_id: str, scope: str, expires_at: float, refusal: str | None = None) -> None:
        self.client_id = client_id
        self.scope = scope
        self.expires_at = expires_at
        self.refusal = refusal  # set for any reason but its age
        self.windows: dict[str, _Window] = {}  # by group of endpoints


class Grants:
    """All API keys and tokens of a sandbox. Safe to use from many threads.

    Attributes:
        lifetime: How many seconds a token lives that is issued from now on.
    """

    def __init__(self, *, lifetime: float, claims: Mapping[str, object], rate_limit: int, rate_window: float) -> None:
        self.lifetime = lifetime
        self._claims = claims
        self._rate_limit = rate_limit
        self._rate_window = rate_window
        self._signing_key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._keys: dict[str, _Key] = {}  # by client id
        self._grants: dict[str, _Grant] = {}  # by token, oldest first

    @property
    def tokens(self) -> tuple[str, ...]:
        """All tokens that are remembered, oldest first."""
        with self._lock:
            return tuple(self._grants)

    def add_key(self, client_id: str, client_secret: str, scope: str) -> None:
        """Make an API key valid beside the others."""
        with self._lock:
            if client_id in self._keys:
                raise ValueError(f"there is a client {client_id!r} already")
            self._keys[client_id] = _Key(client_secret, scope)

    def remove_key(self, client_id: str) -> None:
        """Delete an API key and refuse all its tokens."""
        with self._lock:
            if client_id not in self._keys:
                raise ValueError(f"there is no client {client_id!r}")
            del self._keys[client_id]
            for grant in self._grants.values():
                if grant.client_id == client_id:
                    grant.refusal = "Revoked token."

    def revoke(self, token: str | None) -> None:
        """Refuse a token from now on, or all tokens for None."""
        with self._lock:
            if token is None:
                revoked = list(self._grants.values())
            elif token in self._grants:
                revoked = [self._grants[token]]
            else:
                raise ValueError("this sandbox knows no such token")
            for grant in revoked:
                grant.refusal = "Revoked token."

    def issue(self, request: Request) -> Answer:
        """Return the answer to a token request (RFC 6749 §4.4)."""
        client_id, client_secret = _credentials(request)
        lifetime = self.lifetime
        now = time.time()
        with self._lock:
            key = self._keys.get(client_id)
            if key is None or key.secret != client_secret:
                raise RefusalError(401, "Unknown client or wrong secret.")
            token = self._signed(key.scope, now, now + lifetime)
            self._grants[token] = _Grant(client_id, key.scope, now + lifetime)
            if len(self._grants) > KEPT_TOKENS:
                oldest = next(iter(self._grants))
                del self._grants[oldest]
        return json_answer({"access_token": token, "expires_in": lifetime, "token_type": "bearer"})

    def spend(self, token: str | None, group: str) -> Admission:
        """Count a request to a group of endpoints against the rate limit of its token, and say how it stands."""
        with self._lock:
            # The token is looked up as a whole. So one with a wrong signature is one that was never issued.
            grant = self._grants.get(token or "")
            if grant is None:
                grant = _Grant("", "", math.inf, "Unknown token." if token else "Missing token.")
            now = time.time()
            refusal = grant.refusal
            if refusal is None and now >= grant.expires_at:  # RFC 7519 §4.1.4: "on or after"
                refusal = "Expired token."
            window = grant.windows.get(group, _Window(now, 0))
            if not 0 <= now - window.started_at < self._rate_window:  # It is negative if the clock was set back.
                window = _Window(now, 0)
            grant.windows[group] = _Window(window.started_at, window.spent + 1)
        remaining = self._rate_limit - window.spent - 1
        headers = {
            "X-RateLimit-Limit": str(self._rate_limit),
            "X-RateLimit-Remaining": str(max(remaining, 0)),
            # The documentation says how many seconds are left, not at which time the window ends.
            "X-RateLimit-Reset": str(math.ceil(self._rate_window - (now - window.started_at))),
        }
        return Admission(refusal, frozenset(grant.scope.split()), remaining, headers)

    def _signed(self, scope: str, issued_at: float, expires_at: float) -> str:
        """Return a JWT (RFC 7519), signed with HS256."""
        header = {"typ": "JWT", "alg": "HS256"}
        payload = {
            "claims": self._claims,
            "scope": scope,
            # The times keep their fractions (RFC 7519 §2), because a token may live for less than a second.
            "iat": issued_at,
            "exp": expires_at,
            "jti": secrets.token_hex(8),  # No two tokens are alike.
        }
        signing_input = b".".join(_base64url(json.dumps(part).encode()) for part in (header, payload))
        signature = hmac.digest(self._signing_key, signing_input, "sha256")
        return b".".join([signing_input, _base64url(signature)]).decode()


def _credentials(request: Request) -> tuple[str, str]:
    """Return the client id and the secret of a well-formed token request."""
    if request.method != "POST":
        raise RefusalError(405, "Wrong method.", {"Allow": "POST"})
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusalError(400, "The content type must be application/json.")
    fields = parsed(request.body)
    client_id = member(fields, "client_id", str)
    client_secret = member(fields, "client_secret", str)
    if member(fields, "grant_type", str) != "client_credentials":
        raise RefusalError(400, "The grant_type must be client_credentials.")
    return client_id, client_secret


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
