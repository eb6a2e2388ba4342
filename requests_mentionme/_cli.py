"""The commands of the command line, but for the demo. Each prints, and returns the exit status."""

import json
import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

from requests_mentionme._auth import MentionMeAuth
from requests_mentionme._wire import number
from requests_mentionme.sandbox import Sandbox


def token(options: Namespace) -> int:
    """Print an access token, for `$(...)`."""
    print(_auth(options).access_token())
    return 0


def whoami(options: Namespace) -> int:
    """Print what an access token tells about itself: one fact on each line, or a JSON object."""
    facts = _facts(_auth(options).claims())
    if options.json:
        print(json.dumps(facts))
        return 0
    for name, fact in facts.items():
        unit = " s" if name == "expires_in" and fact is not None else ""
        print(f"{name.replace('_', ' '):11}  {_shown(fact)}{unit}")
    return 0


def sandbox(options: Namespace) -> int:
    """Serve until SIGINT or SIGTERM; print the variables with which the other commands find it."""
    with suppress(KeyboardInterrupt), Sandbox(port=options.port, lifetime=options.lifetime) as running:
        for interruption in (signal.SIGINT, signal.SIGTERM):  # the first too: background jobs of a script ignore it
            signal.signal(interruption, signal.default_int_handler)
        print(f"export MENTIONME_CLIENT_ID={running.client_id}")
        print(f"export MENTIONME_CLIENT_SECRET={running.client_secret}")
        print(f"export MENTIONME_ENVIRONMENT={running.url}", flush=True)
        leave_stdout()  # or eval "$(requests-mentionme sandbox &)" would wait for more
        while True:
            time.sleep(3600)
    return 0


def leave_stdout() -> None:
    """Point stdout at nothing: a pipe ends there, and what could not be written is lost without a second error."""
    if sys.stdout is not None:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())


def _auth(options: Namespace) -> MentionMeAuth:
    given = options.environment
    return MentionMeAuth.from_env() if given is None else MentionMeAuth.from_env(environment=given)


def _facts(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a payload tells, None for what it does not. Little of its form is documented, so any will do."""
    inner: Any = payload.get("claims")
    claims = cast("dict[str, Any]", inner if isinstance(inner, dict) else {}) | {**payload}
    scope, issued, expiry = claims.get("scope"), number(claims.get("iat")), number(claims.get("exp"))
    return {
        "environment": claims.get("env"),
        "merchant": claims.get("merchantId"),
        "scopes": scope.split() if isinstance(scope, str) else scope,
        "issued": None if issued is None else _moment(issued),
        "expires_in": None if expiry is None else round(expiry - time.time()),
    }


def _moment(seconds: float) -> str | None:
    with suppress(ValueError, OverflowError, OSError):  # of years that have no date
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat(" ", "seconds")
    return None


def _shown(fact: object) -> str:
    """Return *fact* as text that can't break out of its line: a server wrote it."""
    text = " ".join(map(str, cast("list[object]", fact))) if isinstance(fact, list) else str(fact)
    return "unknown" if fact is None else text if text.isascii() and text.isprintable() else ascii(text)
