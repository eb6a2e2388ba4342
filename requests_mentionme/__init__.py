"""Authentication with `requests` for Mention Me's Merchant API.

    session.auth = MentionMeAuth("client-id", "client-secret", environment="demo")

`MentionMeAuth` gets a JWT on the first request, renews it before it expires, and retries once on a 401. All other
names here are what it takes and what it raises. The module `requests_mentionme.sandbox` is a stand-in for Mention Me on
this machine, for tests and demos.
"""

from requests_mentionme._auth import MentionMeAuth
from requests_mentionme._environment import DEMO, PRODUCTION, Environment
from requests_mentionme._errors import InvalidClientError, MentionMeAuthError, TokenEndpointError, TokenResponseError
from requests_mentionme._version import __version__

__all__ = [
    "DEMO",
    "PRODUCTION",
    "Environment",
    "InvalidClientError",
    "MentionMeAuth",
    "MentionMeAuthError",
    "TokenEndpointError",
    "TokenResponseError",
    "__version__",
]

# Tracebacks, pickles and help then show the path that a public name is imported from.
for _public in (
    Environment,
    InvalidClientError,
    MentionMeAuth,
    MentionMeAuthError,
    TokenEndpointError,
    TokenResponseError,
):
    _public.__module__ = __name__
del _public
