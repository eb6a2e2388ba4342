"""The token endpoint, API keys, and what becomes of tokens."""

import os

import jwt
import pytest

ALL_SCOPES = "customers:read customers:write customers:delete rewards:read"


@pytest.mark.parametrize("options", [{}, {"merchant_id": 7, "env": "live", "scope": "a b", "lifetime": 60}])
def test_token_is_a_signed_jwt_unlike_any_other_with_the_documented_claims(clock, serve, monkeypatch, options):
    random = []  # Its first piece is the key, which the sandbox shows to nobody.
    monkeypatch.setattr("secrets.token_bytes", lambda size: random.append(os.urandom(size)) or random[-1])
    client = serve(**options)
    told = {"merchant_id": 4259, "env": "demo", "scope": ALL_SCOPES, "lifetime": 3600} | options
    claims = {"claims": {"env": told["env"], "merchantId": told["merchant_id"]}, "scope": told["scope"]}
    # Case and parameters of the media type make no difference.
    replies = [client.ask_for_token({"Content-Type": "Application/JSON ; charset=utf-8"}) for _ in range(3)]
    assert len(set(client.sandbox.tokens)) == 3
    for reply, token in zip(replies, client.sandbox.tokens, strict=True):
        assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
        assert reply.headers["Date"] == "Thu, 01 Jan 2026 12:00:00 GMT"
        assert reply.json == {"access_token": token, "expires_in": told["lifetime"], "token_type": "bearer"}
        assert jwt.get_unverified_header(token) == {"typ": "JWT", "alg": "HS256"}
        payload = jwt.decode(token, random[0], algorithms=["HS256"], options={"verify_exp": False})
        assert len(payload.pop("jti")) == 16
        assert payload == {**claims, "iat": 1_767_268_800, "exp": 1_767_268_800 + told["lifetime"]}


NOT_JSON = [{}, {"Content-Type": "text/json"}]
MISFITS = [("client_id", ""), ("client_id", 7), ("client_secret", 7), ("grant_type", None)]


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        *(({"headers": kind}, 400, "The content type must be application/json.") for kind in NOT_JSON),
        *(({name: value}, 400, f"{name} is missing, empty or of the wrong type.") for name, value in MISFITS),
        ({"grant_type": "password"}, 400, "The grant_type must be client_credentials."),
        *(({name: "wrong"}, 401, "Unknown client or wrong secret.") for name in ("client_id", "client_secret")),
    ],
    ids=str,
)
def test_wrong_token_request_is_refused_in_the_documented_shape(client, changes, status, message):
    assert client.ask_for_token(**changes).told == (status, {"code": str(status), "message": message})
    assert (client.sandbox.token_requests, client.sandbox.tokens) == (1, ())


def test_keys_are_valid_beside_each_other_until_one_is_removed_and_its_tokens_until_they_are_revoked(client):
    client.sandbox.add_client("second", "hush", scope="rewards:read")
    client.sandbox.add_client("third", "hush")
    old = client.new_token()
    new, third = (client.new_token(client_id=name, client_secret="hush") for name in ("second", "third"))
    scopes = [jwt.decode(token, options={"verify_signature": False})["scope"] for token in (old, new, third)]
    assert scopes == [ALL_SCOPES, "rewards:read", ALL_SCOPES]
    assert client.ask_for_token(client_id="second").status == 401
    client.sandbox.remove_client("sandbox-id")
    assert (client.ask_for_token().status, client.call(old).json["message"]) == (401, "Revoked token.")
    client.sandbox.add_client("sandbox-id", "fresh")
    assert [client.call(token).status for token in (old, new)] == [401, 200]
    client.sandbox.revoke(new)
    assert client.call(new).told == (401, {"code": "401", "message": "Revoked token."})
    assert client.call(third).status == 200
    client.sandbox.revoke()
    later = client.new_token(client_secret="fresh")
    assert [client.call(token).status for token in (new, third, later)] == [401, 401, 200]
    assert client.sandbox.rejections == 5


MISSING = [None, "", "Basic {token}", "Bearer", "Bearer  ", "Bearer{token}"]
UNKNOWN = ["Bearer nonsense", "Bearer {tampered}", "Bearer {foreign}", "Bearer {token}, Bearer {token}"]


@pytest.mark.parametrize("header", [*MISSING, *UNKNOWN, "bEARER   {token}"])
def test_request_without_a_good_token_is_rejected_whatever_the_case_of_the_scheme(client, serve, header):
    token, foreign = client.new_token(), serve().new_token()
    head, _, signature = token.rpartition(".")
    tokens = {"token": token, "foreign": foreign, "tampered": f"{head}.{signature.swapcase()}"}
    headers = {} if header is None else {"Authorization": header.format(**tokens)}
    reply = client.ask("GET", "/api/merchant/v2/coupons/validate/SAMPLE", None, headers)
    is_good = header not in MISSING + UNKNOWN
    assert (client.sandbox.api_requests, client.sandbox.rejections, reply.status == 200) == (1, not is_good, is_good)
    message = "Missing token." if header in MISSING else "Unknown token."
    assert is_good or (reply.status, reply.json) == (401, {"code": "401", "message": message})


def test_token_expires_when_the_lifetime_is_over_that_was_set_when_it_was_issued(clock, client):
    client.sandbox.lifetime = 0.25
    reply = client.ask_for_token()
    token = reply.json["access_token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    assert reply.json["expires_in"] == client.sandbox.lifetime == claims["exp"] - claims["iat"] == 0.25
    clock.tick(0.2)
    assert client.call(token).status == 200
    for seconds in (0.05, 1):  # refused from the very second of `exp` on
        clock.tick(seconds)
        assert client.call(token).told == (401, {"code": "401", "message": "Expired token."})
