"""The errors, split by what the reader does about them: fix the key, try later, report it."""

from requests import RequestException


class MentionMeAuthError(RequestException):
    """No token could be obtained: the base of the three below. Network faults stay the exceptions of `requests`."""


class InvalidClientError(MentionMeAuthError):
    """The token endpoint refused the credentials (400, 401, 403; RFC 6749 §5.2). Another try won't help."""


class TokenEndpointError(MentionMeAuthError):
    """The token endpoint gave no token this time, or a wait for one ran out.

    Attributes:
        retry_after: Seconds after which the endpoint asked to be tried again, None where it did not.
    """

    retry_after: float | None = None

    def __str__(self) -> str:
        return super().__str__() + ("" if self.retry_after is None else f" Try again in {self.retry_after:.0f} s.")


class TokenResponseError(MentionMeAuthError):
    """The token endpoint answered 2xx with something that can't be used as a token."""
