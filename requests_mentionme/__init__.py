"""`requests` authentication for Mention Me's Merchant API: `session.auth = MentionMeAuth(client_id, client_secret)`."""

from requests_mentionme._auth import MentionMeAuth
from requests_mentionme._environment import DEMO, PRODUCTION, Environment
from requests_mentionme._errors import InvalidClientError, MentionMeAuthError, TokenEndpointError, TokenResponseError

__all__ = [
    "DEMO",
    "PRODUCTION",
    "Environment",
    "InvalidClientError",
    "MentionMeAuth",
    "MentionMeAuthError",
    "TokenEndpointError",
    "TokenResponseError",
]
