"""What an answer of the token endpoint means: a token, or the error that says what went wrong and what to do.

Pure, but for the clock: a `Retry-After` that is a date is compared with it. What a server wrote is quoted in bounds and
without the client secret, which it may echo anywhere.
"""

import time

from requests import Response

from requests_mentionme._credentials import ClientCredentials
from requests_mentionme._environment import Environment
from requests_mentionme._errors import InvalidClientError, MentionMeAuthError, TokenEndpointError, TokenResponseError
from requests_mentionme._token import Token, parse_token
from requests_mentionme._wire import json_object, requested_wait, scrub, server_words

_REFUSED_CREDENTIALS = (400, 401, 403)  # RFC 6749 §5.2 has the first two; Mention Me does not document its own
_LONGEST_CONTENT_TYPE = 100  # characters that a message quotes


class AnswerReader:
    """Reads the answers to the token requests of one environment."""

    def __init__(self, environment: Environment, refresh_margin: float) -> None:
        self._environment = environment
        self._refresh_margin = refresh_margin

    def token_in(self, response: Response, body: bytes, credentials: ClientCredentials, sent_at: float) -> Token:
        """Return the token in a 2xx answer.

        Raises:
            TokenResponseError: There is no usable token in it.
        """
        fields = json_object(body)
        if fields is None:
            raise self.unusable(response, "is not a JSON object", credentials)
        try:
            return parse_token(fields, response.headers.get("Date"), sent_at, self._refresh_margin)
        except ValueError as missing:
            flaw = f"has {missing}"
        # Raised out here, so that the error has no context: that would keep the frames with the token alive.
        raise self.unusable(response, flaw, credentials, server_words(fields, credentials.client_secret))

    def unusable(
        self, response: Response, flaw: str, credentials: ClientCredentials, words: str = ""
    ) -> TokenResponseError:
        """Return the error for an answer that can't be used. It carries no response, since that may hold a token.

        Args:
            response: The answer.
            flaw: What is wrong, in words that follow "the answer".
            credentials: Whose secret must not be shown.
            words: What the server says, quoted.
        """
        content_type = scrub(response.headers.get("Content-Type", "none"), credentials.client_secret)
        shown_type = repr(content_type[:_LONGEST_CONTENT_TYPE])
        sentences = [f"{self._answered(response)} with the content type {shown_type}, but the answer {flaw}."]
        if words:
            sentences.append(_quotation(words))
        if "html" in content_type.lower():
            sentences.append("A proxy or a login page may have answered in the place of the token endpoint.")
        sentences.append("No token was obtained.")
        return TokenResponseError(" ".join(sentences))

    def unfinished(self, response: Response, budget: float) -> TokenEndpointError:
        """Return the error for an answer whose body did not end within the *budget* of seconds."""
        return TokenEndpointError(
            f"{self._answered(response)}, but the answer did not come to an end within {budget:g} s. "
            "The next request that needs a token asks again."
        )

    def refusal(self, response: Response, body: bytes, credentials: ClientCredentials) -> MentionMeAuthError:
        """Return the error for an answer that is not 2xx."""
        status = response.status_code
        secret = credentials.client_secret
        shown = _shown(response, body, secret)
        sentences = [f"{self._answered(response)}."]
        words = server_words(json_object(body), secret)
        if words:
            sentences.append(_quotation(words))
        sentences.append(self._advice(status))
        if status in _REFUSED_CREDENTIALS:
            if secret != secret.strip():
                sentences.append("The client secret begins or ends with white space: was it copied by mistake?")
            return InvalidClientError(" ".join(sentences), response=shown)
        wait = requested_wait(response.headers, time.time())
        if wait is None and may_pass(status):
            sentences.append("The next request that needs a token asks again.")
        error = TokenEndpointError(" ".join(sentences), response=shown)
        error.retry_after = wait
        return error

    def _advice(self, status: int) -> str:
        """Return what the reader of an error can do about an answer with this status."""
        if status in _REFUSED_CREDENTIALS:
            check = f"Check the client id and secret: are they of an API key of {self._environment.name}?"
            if status != 403:
                return check
            return f"{check} Or something on the way refused the request: a firewall, or an allow-list of addresses."
        if 300 <= status < 400:
            return "A redirect is not followed, since the client secret would go along. Check the token URL."
        if status == 429:
            return "The endpoint limits how often it may be asked."
        if status >= 500:
            return "This is a fault on the side of the server."
        return f"Check that the token URL of the environment {self._environment.name} is right."

    def _answered(self, response: Response) -> str:
        return f"POST {self._environment.token_url} answered {response.status_code}"


def may_pass(status: int) -> bool:
    """Return whether the fault that a status tells of may pass, so that another try may end better."""
    return status == 429 or status >= 500


def _quotation(words: str) -> str:
    """Return a sentence that quotes the server. The quoted words may bring a full stop of their own."""
    has_full_stop = words[-2] == "."  # before the closing quote
    return f"The server says {words}" if has_full_stop else f"The server says {words}."


def _shown(response: Response, body: bytes, secret: str) -> Response:
    """Return a response to attach to an error. It holds no connection, and nothing in it echoes the secret.

    Its request still holds the secret. `_endpoint` redacts that in whatever is raised.
    """
    shown = Response()
    shown.status_code = response.status_code
    shown.reason = scrub(response.reason or "", secret)
    shown.url = response.url
    shown.request = response.request
    shown.encoding = response.encoding
    shown.elapsed = response.elapsed
    shown.headers.update({name: scrub(value, secret) for name, value in response.headers.items()})
    content = scrub(body.decode(errors="surrogateescape"), secret).encode(errors="surrogateescape")
    vars(shown).update(_content=content, _content_consumed=True)  # as if it had been read
    return shown
