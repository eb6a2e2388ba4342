"""The main job, run for real over sockets against a sandbox on this machine; each step is printed and checked."""

import time
from itertools import islice

import requests

from requests_mentionme._auth import MentionMeAuth
from requests_mentionme.sandbox import Sandbox, SeenRequest

_LIFETIME = 4.0
_CUSTOMERS = "/api/merchant/v2/customers"
_IDENTIFIERS = {"identifiers": [{"type": "email", "value": "ada@example.com"}]}


class _Story:
    """Prints each step, with what the sandboxes saw of it, and remembers whether all held."""

    def __init__(self, *sandboxes: Sandbox) -> None:
        self._told = dict.fromkeys(sandboxes, 0)
        self.held = True

    def tell(self, title: str, claim: str, *facts: bool) -> None:
        """Print a step that is over: its title, its requests, and whether the *facts* bear out the *claim*."""
        print(f"\n{title}")
        for sandbox, told in self._told.items():
            for seen in islice(sandbox.requests, told, None):
                print(f"    {seen.method} {seen.path:31}  {_token_name(sandbox, seen):24}  {seen.status}")
            self._told[sandbox] = len(sandbox.requests)
        self.held = self.held and all(facts)
        print(f"  {'ok' if all(facts) else 'FAILED'}: {claim}")


def run_demo() -> bool:
    """Run the demo and return whether every step held."""
    with (
        Sandbox(lifetime=_LIFETIME) as api,
        Sandbox() as foreign,
        requests.Session() as session,
        requests.Session() as for_tokens,
    ):
        session.trust_env = for_tokens.trust_env = False  # no proxy: nothing leaves this machine
        print(f"Mention Me is played by a sandbox at {api.url}. Nothing leaves this machine.")
        print(f'session.auth = MentionMeAuth("{api.client_id}", "...", environment="{api.url}")')
        session.auth = MentionMeAuth(api.client_id, api.client_secret, environment=api.environment, session=for_tokens)
        return _run_steps(session, api, foreign)


def _run_steps(session: requests.Session, api: Sandbox, foreign: Sandbox) -> bool:
    story = _Story(api, foreign)

    def post(sandbox: Sandbox = api) -> requests.Response:
        return session.post(sandbox.url + _CUSTOMERS, json=_IDENTIFIERS, timeout=10)

    started = time.monotonic()
    story.tell(
        "1. The first request gets a token, then goes out with it.",
        "one token request, and the customers came back",
        post().ok,
        api.token_requests == 1,
    )
    story.tell(
        "2. The second request has one already.",
        "no token request",
        post().ok,
        api.token_requests == 1,
    )
    # A token is renewed in the last fifth of its life. This is the middle of that fifth.
    _wait_until(started + 0.9 * _LIFETIME)
    story.tell(
        f"3. The token lives {_LIFETIME:g} s; shortly before it ends, a request renews it.",
        "one more token request, and no request was refused",
        post().ok,
        api.token_requests == 2,
        api.rejections == 0,
    )
    api.revoke()
    healed = post()
    story.tell(
        "4. The token is revoked: the API answers 401, and the request is retried once with a new one.",
        "the caller sees a 200, and the 401 in its history",
        healed.ok,
        [past.status_code for past in healed.history] == [401],
        api.token_requests == 3,
    )
    post(foreign)
    story.tell(
        "5. The same session talks to a foreign host.",
        "it saw no token",
        foreign.api_requests == 1,
        foreign.requests[-1].token is None,
    )
    print(f"\n{'Every step held.' if story.held else 'A step did not hold.'}")
    return story.held


def _wait_until(moment: float) -> None:
    left = max(0.0, moment - time.monotonic())
    # Written out at once: whoever sees nothing for seconds thinks that the demo hangs.
    print(f"\n(waiting {left:.1f} s until the token is about to expire ...)", flush=True)
    time.sleep(left)


def _token_name(sandbox: Sandbox, seen: SeenRequest) -> str:
    """Return which of the issued tokens a request carried, with its last letters."""
    if seen.path == "/api/oauth/token":
        return "asks for a token"
    if seen.token is None:
        return "without a token"
    return f"token {sandbox.tokens.index(seen.token) + 1} (...{seen.token[-6:]})"
