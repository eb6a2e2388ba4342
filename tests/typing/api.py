"""What typed users write, for type checkers alone: never run. A line with `type: ignore` must be an error to them."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from typing_extensions import assert_type  # type checkers know it without it being installed

import requests_mentionme
from requests_mentionme import (
    DEMO,
    PRODUCTION,
    Environment,
    InvalidClientError,
    MentionMeAuth,
    MentionMeAuthError,
    TokenEndpointError,
    TokenResponseError,
)
from requests_mentionme.sandbox import Sandbox, SeenRequest

COUPON = "https://demo.mention-me.com/api/merchant/v2/coupons/validate/SAMPLE"


class ShopAuth(MentionMeAuth):
    """An auth that knows its shop."""

    def __init__(self, shop: str, client_id: str, client_secret: str, *, environment: Environment = DEMO) -> None:
        """Take the shop, too."""
        super().__init__(client_id, client_secret, environment=environment)
        self.shop = shop

    def claims(self) -> dict[str, Any]:
        """Return the payload, and the shop."""
        return {**super().claims(), "shop": self.shop}


class ShopClient:
    """A client of the API that holds its auth."""

    session: requests.Session
    auth: MentionMeAuth
    environments: dict[str, Environment]

    def __init__(self, auth: MentionMeAuth, sandbox: Sandbox | None = None) -> None:
        """Take the auth."""
        self.auth, self.sandbox = auth, sandbox
        self.session = requests.Session()
        self.session.auth = auth
        self.environments = {environment.name: environment for environment in (PRODUCTION, DEMO)}

    def validate(self, code: str) -> dict[str, Any]:
        """Return what the API says of a coupon code."""
        response = self.session.get(COUPON.replace("SAMPLE", code), timeout=(3.05, 10))
        response.raise_for_status()
        payload: dict[str, Any] = response.json()
        return payload


class BytesStore:
    """A store that returns bytes, as a client of Redis does."""

    def __init__(self) -> None:
        self._stored: dict[str, bytes] = {}

    def __getitem__(self, key: str) -> bytes:
        return self._stored[key]

    def __setitem__(self, key: str, value: str) -> None:
        self._stored[key] = value.encode()

    def __delitem__(self, key: str) -> None:
        del self._stored[key]


def construction(session: requests.Session) -> list[MentionMeAuth]:
    """Make an auth in each way there is."""
    session.mount("https://", HTTPAdapter(max_retries=3))
    return [
        MentionMeAuth("an-id", "a-secret"),
        MentionMeAuth(client_id="an-id", client_secret="a-secret"),
        MentionMeAuth("an-id", "a-secret", environment="demo"),
        MentionMeAuth("an-id", "a-secret", environment=DEMO, session=session, timeout=5, refresh_margin=60),
        MentionMeAuth("an-id", "a-secret", environment="https://host.example", session=None, timeout=2.5),
        MentionMeAuth("an-id", "a-secret", environment=Environment.at("http://localhost:8000"), timeout=(3, 27.5)),
        MentionMeAuth.from_env(),
        MentionMeAuth.from_env(environment=PRODUCTION, timeout=(3, 27.5), refresh_margin=0, session=session),
        MentionMeAuth.from_provider(lambda: ("an-id", "a-secret"), environment="demo", store={}),
        MentionMeAuth("an-id", "a-secret", store=BytesStore()),
        ShopAuth("a shop", "an-id", "a-secret", environment=PRODUCTION),
    ]


def construction_gone_wrong() -> None:
    """What a type checker finds before it raises."""
    MentionMeAuth("an-id")  # type: ignore[call-arg]
    MentionMeAuth("an-id", None)  # type: ignore[arg-type]
    MentionMeAuth("an-id", b"a-secret")  # type: ignore[arg-type]
    MentionMeAuth("an-id", "a-secret", DEMO)  # type: ignore[call-arg]
    MentionMeAuth("an-id", "a-secret", environment=None)  # type: ignore[arg-type]
    MentionMeAuth("an-id", "a-secret", timeout=None)  # type: ignore[arg-type]
    MentionMeAuth("an-id", "a-secret", timeout=(1, 2, 3))  # type: ignore[arg-type]
    MentionMeAuth("an-id", "a-secret", leeway=60)  # type: ignore[call-arg]
    Environment("mine", "https://host.example/token")  # type: ignore[call-arg]
    MentionMeAuth("an-id", "a-secret", store=["a list"])  # type: ignore[arg-type]
    DEMO.name = "production"  # type: ignore[misc]
    MentionMeAuth("an-id", "a-secret").environment = DEMO  # type: ignore[misc]


def use(auth: MentionMeAuth, client: ShopClient) -> requests.Response:
    """Authenticate requests in each way that `requests` has."""
    session = requests.Session()
    session.auth = auth
    session.post("https://demo.mention-me.com/api/merchant/v2/customers", json={"identifiers": []}, auth=auth)
    requests.request("DELETE", "https://demo.mention-me.com/api/merchant/v2/customers", auth=auth, timeout=10)
    prepared = session.prepare_request(requests.Request("GET", COUPON, auth=auth))
    assert_type(auth(prepared), requests.PreparedRequest)
    assert_type(client.validate("SAMPLE"), dict[str, Any])
    return use_any(auth)


def use_any(auth: AuthBase) -> requests.Response:
    """Be written for any auth."""
    return requests.get(COUPON, auth=auth, timeout=10)


def token(auth: MentionMeAuth) -> str:
    """Read, and drop, the token."""
    assert_type(auth.access_token(), str)
    assert_type(auth.access_token(refused=auth.access_token()), str)
    assert_type(auth.environment, Environment)
    assert_type(auth.claims(), dict[str, Any])
    expiry: float = auth.claims()["exp"]
    auth.invalidate()
    auth.invalidate(None)
    auth.invalidate(auth.access_token())
    auth.invalidate(token=f"the one that ended at {expiry}")
    return f"Authorization: Bearer {auth.access_token()}"


def environments() -> set[Environment]:
    """Make an environment, and read it."""
    mine = Environment("mine", "https://host.example/token", ["https://host.example", "https://api.host.example"])
    also_mine = Environment(name="mine", token_url=mine.token_url, origins=mine.origins)
    assert_type(mine.name, str)
    assert_type(mine.token_url, str)
    assert_type(mine.origins, frozenset[str])
    assert_type(mine.base_url, str)
    assert_type(mine == also_mine, bool)
    assert_type(Environment.at("https://host.example"), Environment)
    return {PRODUCTION, DEMO, mine}


def errors(auth: MentionMeAuth) -> float:
    """Return how long to wait until the next try, and tell each error from the others."""
    try:
        requests.get(COUPON, auth=auth, timeout=10).raise_for_status()
    except InvalidClientError as error:
        assert_type(error.response, requests.Response | None)
        raise SystemExit(str(error)) from error
    except TokenEndpointError as error:
        assert_type(error.retry_after, float | None)
        if error.retry_after is None:
            return 60
        assert_type(error.retry_after, float)
        return min(error.retry_after, 300)
    except TokenResponseError:
        raise
    except MentionMeAuthError as error:
        base: requests.RequestException = error
        raise base from error
    except (requests.ConnectionError, requests.Timeout):
        return 1
    return 0


def may_pass(error: Exception) -> bool | float:
    """Return how long to wait, as a retry policy is told."""
    if isinstance(error, TokenEndpointError):
        return error.retry_after or True
    transient: tuple[type[Exception], ...] = (requests.ConnectionError, requests.Timeout)
    return isinstance(error, transient) and not isinstance(error, MentionMeAuthError)


@contextmanager
def play() -> Generator[ShopClient]:
    """Provide a client of a sandbox, as in a fixture."""
    with Sandbox(
        client_id="an-id", client_secret="a-secret", lifetime=0.5, rate_limit=10, rate_window=5, port=0
    ) as sandbox:
        assert_type(sandbox, Sandbox)
        assert_type(sandbox.environment, Environment)
        auth = MentionMeAuth(sandbox.client_id, sandbox.client_secret, environment=sandbox.environment)
        yield ShopClient(auth, sandbox)


def play_with(sandbox: Sandbox) -> None:
    """Use all of a sandbox."""
    sandbox.lifetime = 60
    sandbox.add_client("other-id", "other-secret", scope="customers:read")
    sandbox.fail_token_requests(status=503, times=2, headers={"Retry-After": "3"})
    sandbox.fail_api_requests(2, reset=True)
    sandbox.fail_api_requests(delay=0.5, status=200, body=b"{}")
    sandbox.clear_faults()
    sandbox.revoke()
    sandbox.revoke(sandbox.tokens[-1])
    sandbox.remove_client("other-id")
    assert_type(sandbox.url, str)
    assert_type(sandbox.tokens, tuple[str, ...])
    assert_type(sandbox.requests, tuple[SeenRequest, ...])
    assert_type(sandbox.token_requests + sandbox.api_requests + sandbox.rejections + sandbox.connections, int)
    (*_, last) = sandbox.requests
    assert_type(last.token, str | None)
    assert_type(last.status, int | None)
    assert_type(last.headers["content-type"], str)
    assert_type(last.body, bytes)
    sandbox.client_id = "fixed"  # type: ignore[misc]


def by_module() -> requests_mentionme.MentionMeAuth:
    """Use the names without importing each."""
    assert_type(requests_mentionme.PRODUCTION, requests_mentionme.Environment)
    assert_type(requests_mentionme.__version__, str)
    return requests_mentionme.MentionMeAuth("an-id", "a-secret", environment=requests_mentionme.DEMO)
