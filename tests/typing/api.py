"""What typed users write, for type checkers alone: never run. A line with `type: ignore` must be an error to them."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import requests.auth
from typing_extensions import assert_type  # type checkers know it without it being installed

import requests_mentionme
from requests_mentionme import DEMO, PRODUCTION, Environment, MentionMeAuth, TokenEndpointError
from requests_mentionme.sandbox import Sandbox, SeenRequest

COUPON = "https://demo.mention-me.com/api/merchant/v2/coupons/validate/SAMPLE"


class ShopAuth(MentionMeAuth):
    def __init__(self, shop: str, client_id: str, client_secret: str, *, environment: Environment = DEMO) -> None:
        super().__init__(client_id, client_secret, environment=environment)
        self.shop = shop

    def claims(self) -> dict[str, Any]:
        return {**super().claims(), "shop": self.shop}


class BytesStore:
    def __init__(self) -> None:
        self._stored: dict[str, bytes] = {}

    def __getitem__(self, key: str) -> bytes:
        return self._stored[key]

    def __setitem__(self, key: str, value: str) -> None:
        self._stored[key] = value.encode()

    def __delitem__(self, key: str) -> None:
        del self._stored[key]


def construction(session: requests.Session) -> list[requests.auth.AuthBase]:
    return [
        MentionMeAuth("an-id", "a-secret"),
        MentionMeAuth(client_id="an-id", client_secret="a-secret"),
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
    MentionMeAuth("an-id")  # type: ignore[call-arg]
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


def use(auth: MentionMeAuth) -> requests.Response:
    session = requests.Session()
    session.auth = auth
    session.post("https://demo.mention-me.com/api/merchant/v2/customers", json={"identifiers": []}, auth=auth)
    assert_type(auth(session.prepare_request(requests.Request("GET", COUPON, auth=auth))), requests.PreparedRequest)
    return requests.get(COUPON, auth=auth, timeout=10)


def token(auth: MentionMeAuth) -> str:
    assert_type(auth.access_token(refused=auth.access_token()), str)
    assert_type(auth.environment, Environment)
    assert_type(auth.claims(), dict[str, Any])
    assert_type(requests_mentionme.__version__, str)
    auth.invalidate()
    auth.invalidate(token=f"the one that ended at {auth.claims()['exp']}")
    return f"Authorization: Bearer {auth.access_token()}"


def environments() -> set[Environment]:
    mine = Environment("mine", "https://host.example/token", ["https://host.example", "https://api.host.example"])
    Environment(name="mine", token_url=mine.token_url, origins=mine.origins)
    assert_type(mine.name, str)
    assert_type(mine.token_url, str)
    assert_type(mine.origins, frozenset[str])
    assert_type(mine.base_url, str)
    return {PRODUCTION, DEMO, mine}


def errors(auth: MentionMeAuth) -> float:
    try:
        requests.get(COUPON, auth=auth, timeout=10).raise_for_status()
    except requests_mentionme.InvalidClientError as error:
        assert_type(error.response, requests.Response | None)
        raise SystemExit(str(error)) from error
    except TokenEndpointError as error:
        assert_type(error.retry_after, float | None)
        if error.retry_after is None:
            return 60
        return min(error.retry_after, 300)
    except requests_mentionme.TokenResponseError:
        raise
    except requests_mentionme.MentionMeAuthError as error:
        base: requests.RequestException = error
        raise base from error
    return 0


@contextmanager
def play() -> Generator[MentionMeAuth]:
    with Sandbox(client_id="an-id", client_secret="a-secret", lifetime=0.5, rate_limit=10, port=0) as sandbox:
        yield MentionMeAuth(sandbox.client_id, sandbox.client_secret, environment=sandbox.environment)


def play_with(sandbox: Sandbox) -> None:
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
