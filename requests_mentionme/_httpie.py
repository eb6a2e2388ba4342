"""The plugin for HTTPie, which alone loads it: `https --auth-type=mentionme -a ID:SECRET ...`."""

import os
from typing import TYPE_CHECKING

from requests import PreparedRequest
from requests.auth import AuthBase

from requests_mentionme._auth import MentionMeAuth
from requests_mentionme._environment import DEMO, PRODUCTION, displayed_origin, resolve_environment
from requests_mentionme._errors import MentionMeAuthError

if TYPE_CHECKING:
    AuthPlugin = object  # HTTPie has no types
else:
    from httpie.plugins import AuthPlugin


class MentionMePlugin(AuthPlugin):
    """Makes `MentionMeAuth` an auth type of HTTPie."""

    name = "Mention Me"
    description = "gets a JWT by OAuth 2.0 client credentials; MENTIONME_ENVIRONMENT, where set, says from where"
    auth_type = "mentionme"

    def get_auth(self, username: str, password: str) -> AuthBase:
        """Return the auth; what is wrong it raises when called, as from here HTTPie would show a traceback."""
        return _Auth(username, password)


class _Auth(AuthBase):
    def __init__(self, client_id: str, client_secret: str) -> None:
        self._credentials = client_id, client_secret

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Authenticate for the environment that trusts the URL; never one made from it, which would get the secret."""
        given = os.environ.get("MENTIONME_ENVIRONMENT")
        environments = [resolve_environment(given)] if given else [PRODUCTION, DEMO]
        for environment in environments:
            if environment.trusts(r.url):
                return MentionMeAuth(*self._credentials, environment=environment)(r)
        origins = ", ".join(sorted(origin for environment in environments for origin in environment.origins))
        raise MentionMeAuthError(f"No token is sent to {displayed_origin(r.url)}, only to {origins}.")
