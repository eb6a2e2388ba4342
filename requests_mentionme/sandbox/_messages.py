"""What the rooms of the sandbox pass to each other: requests, answers and refusals."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeVar, cast

_T = TypeVar("_T")
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Request(NamedTuple):
    """A request that was read to its end. The names of its headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query, still percent-encoded."""
        return self.target.partition("?")[0]

    @property
    def token(self) -> str | None:
        """The token of the Authorization header (RFC 6750 §2.1), whose scheme may have any case."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        return token.strip() or None


class Answer(NamedTuple):
    """What a client gets. The headers take the place of the usual ones of the same name."""

    status: int
    body: bytes
    headers: Mapping[str, str] = _NO_HEADERS


class HangUp(NamedTuple):
    """The end of a connection without an answer in HTTP: these bytes, then a FIN, or an RST for a *reset*."""

    data: bytes = b""
    reset: bool = False


class RefusalError(Exception):
    """Ends a request at any depth with an error answer in the documented shape."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        super().__init__(message)
        self.answer = error_answer(status, message)._replace(headers=headers)


def json_answer(content: Mapping[str, object]) -> Answer:
    """Return a 200 with this content."""
    return Answer(200, json.dumps(content).encode())


def error_answer(status: int, message: str) -> Answer:
    """Return an error in the documented shape."""
    return json_answer({"code": str(status), "message": message})._replace(status=status)


def parsed(body: bytes) -> object:
    """Return the JSON value that a body holds."""
    try:
        return cast("object", json.loads(body))
    except (ValueError, RecursionError):
        raise RefusalError(400, "The body must be JSON.") from None


def member(value: object, name: str, kind: type[_T]) -> _T:
    """Return a member of a JSON object. It is a refusal if the value is no object, or if the member is empty."""
    found = cast("dict[str, object]", value).get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind) or not found:
        raise RefusalError(400, f"{name} is missing, empty or of the wrong type.")
    return found
