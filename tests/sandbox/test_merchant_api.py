"""The Merchant API: its endpoints, their data, scopes, paths and methods, and its rate limit."""

import math
import threading

import pytest

ADA = {"type": "email", "value": "ada@example.com"}
BOB = {"type": "email", "value": "Bob@Unknown.Example"}
NOT_FOUND = [{"value": BOB["value"], "reason": "notFound"}]
ONE = {"identifiers": [ADA]}
ENDPOINTS = [
    (("POST", "customers", ONE), {"customers:read"}),
    (("DELETE", "customers", ONE), {"customers:delete"}),
    (("POST", "customers/lapse", ONE), {"customers:write"}),
    (("POST", "customers/rewards", {"identifier": ADA}), {"customers:read", "rewards:read"}),
    (("POST", "referee/eligibility", ONE), {"customers:write"}),
    (("GET", "coupons/validate/SAMPLE", None), set()),
]
CUSTOMER = {
    *("customerId", "email", "firstname", "surname", "phoneNumbers", "profileUrl", "mentionMeCustomerId", "offers"),
    *("nps", "createdDate", "lastPurchaseDate", "receivingEmails", "suspectedOfGaming", "metrics", "segments"),
}
REWARD = {
    *("id", "fulfilledBy", "amount", "description", "beforePurchase", "minimumFriendsRequired", "spendConstraint"),
    *("callToActionUrl", "couponCode", "couponLink", "securityCode", "expiryDate"),
}
COUPON = {"validityResponseDescription", "rewardType", "rewardAmount", "currencyCode", "description"}


@pytest.mark.parametrize(("request_", "scopes"), ENDPOINTS)
def test_endpoint_answers_the_same_to_all_who_have_its_scopes(client, serve, request_, scopes):
    """A 403 says which scope is missing, and is no rejection of the token."""
    least = serve(scope=" ".join({"other", *scopes}), merchant_id=1, env="live")
    first, second = (each.call(each.new_token(), *request_) for each in (client, least))
    assert (first.status, second.status, first.headers["Content-Type"]) == (200, 200, "application/json")
    assert first.body == second.body
    for missing in [scopes, *({scope} for scope in scopes)] if scopes else []:
        forbidden = serve(scope=" ".join({"customers:x", *scopes} - missing))
        expected = (403, {"code": "403", "message": f"Missing scope: {' '.join(sorted(missing))}."})
        assert forbidden.call(forbidden.new_token(), *request_).told == expected
        assert forbidden.sandbox.rejections == 0


def test_customers_are_found_or_accepted_or_listed_as_errors(client):
    token = client.new_token()
    for method, path in (("DELETE", "customers"), ("POST", "customers/lapse"), ("POST", "referee/eligibility")):
        expected = (200, {"accepted": [ADA], "errors": NOT_FOUND})
        assert client.call(token, method, path, {"identifiers": [ADA, BOB]}).told == expected
    expected = (404, {"code": "404", "message": "None of these customers was found."})
    assert client.call(token, "POST", "customers", {"identifiers": [BOB]}).told == expected
    reply = client.call(token, "POST", "customers", {"identifiers": [ADA, BOB]})
    assert (reply.status, reply.json["errors"]) == (200, NOT_FOUND)
    (customer,) = reply.json["data"]
    assert (customer["email"], set(customer)) == (ADA["value"], CUSTOMER)
    data = client.call(token, "POST", "customers/rewards", {"identifier": ADA}).json["data"]
    assert data["customer"] == {"customerId": customer["customerId"], "email": customer["email"]}
    assert set(data["rewards"][0]) == REWARD
    # Each identifier is another customer. Of any other type than email, it is the customer's id.
    others = [{"type": "email", "value": "\ud800"}, {"type": "customerId", "value": "C-7"}]
    data = client.call(token, "POST", "customers", {"identifiers": [ADA, *others]}).json["data"]
    for name in ("customerId", "mentionMeCustomerId", "email"):
        assert len({customer[name] for customer in data}) == 3
    assert (data[2]["customerId"], data[2]["email"].partition("@")[2]) == ("C-7", "shop.example")


def test_coupon_code_is_one_segment_of_the_path_and_decides_its_validity(client):
    for validity, codes in [
        ("FOUND_REDEEMABLE", ["SAMPLE", "SAM%50LE", "SAMPLE?a=b"]),
        ("FOUND_NOT_REDEEMABLE", ["USED"]),
        ("NOT_FOUND", ["sample", "10%2F20%25%C3%A9", "%FF", "{coupon_code}"]),
    ]:
        for code in codes:
            reply = client.call(client.new_token(), "GET", f"coupons/validate/{code}")
            assert (reply.status, code, reply.json["validityResponseCode"]) == (200, code, validity)
            assert set(reply.json) == {"validityResponseCode"} | (set() if validity == "NOT_FOUND" else COUPON)


def test_body_other_than_documented_is_a_bad_request_and_breaks_nothing(client):
    token = client.new_token()
    no_json = [b"", b"{", b"\xff", b"[" * 100_000]
    for path in ("/api/oauth/token", "customers", "customers/rewards", "customers/lapse"):
        for body in [*no_json, b"[]", b'"text"', b"null"]:
            reply = client.call(token, "POST", path, body)
            assert (reply.status, reply.json["code"]) == (400, "400")
            assert ("The body must be JSON." if body in no_json else "is missing") in reply.json["message"]
    half = [{"type": "email"}, {"value": "a"}, {"type": "", "value": "a"}, {"type": "email", "value": 7}]
    for identifiers in [None, "ada", ADA, [], [ADA] * 101, ["ada"], *([ADA, each] for each in half)]:
        assert client.call(token, "DELETE", "customers", {"identifiers": identifiers}).json["code"] == "400"
    for identifier in [None, "ada", [ADA], *half, {"type": "customerId", "value": "C-7"}]:
        assert client.call(token, "POST", "customers/rewards", {"identifier": identifier}).json["code"] == "400"
    assert client.call(token, "POST", "customers/rewards", {"identifier": BOB}).json["code"] == "404"
    assert len(client.call(token, "POST", "customers", {"identifiers": [ADA] * 100}).json["data"]) == 100
    assert client.sandbox.connections == 1


def test_wrong_path_is_a_404_to_those_who_have_a_token_and_a_wrong_method_a_405_that_says_which_there_are(client):
    token = client.new_token()
    elsewhere = ["/", "/api/merchant/v2", "/api/merchant/v20/customers", "/api/oauth/token/"]
    for path in [*elsewhere, "", "customers/", "coupons/validate", "coupons/validate/", "coupons/validate/SAM/PLE"]:
        assert (path, *client.call(token, "GET", path).told) == (path, 404, {"code": "404", "message": "Not found."})
        assert (path, client.call("", "GET", path).status) == (path, 404 if path in elsewhere else 401)
    assert (client.sandbox.token_requests, client.sandbox.api_requests) == (1, 18)
    methods = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
    allowed = {"customers": "POST, DELETE", "customers/rewards": "POST", "coupons/validate/SAMPLE": "GET"}
    for path, right in {**allowed, "/api/oauth/token": "POST"}.items():
        for method in methods - {*right.replace("GET", "GET, HEAD").split(", ")}:
            reply = client.call(token, method, path)
            assert (method, reply.status, reply.headers["Allow"]) == (method, 405, right)


def test_every_answer_of_the_api_tells_the_rate_limit_of_its_group(clock, client):
    token = client.new_token()
    others = [("POST", "customers", b""), ("PUT", "customers"), ("GET", "nowhere")]
    replies = [client.call(token, *request) for request in [*(request for request, _ in ENDPOINTS), *others]]
    assert [reply.status for reply in replies] == [200] * 6 + [400, 405, 404]
    remaining = ["299", "298", "297", "299", "299", "299", "296", "295", "299"]
    assert [reply.limits for reply in replies] == [("300", left, "300") for left in remaining]
    assert client.call("unknown").limits == ("300", "299", "300")
    assert client.ask_for_token().limits == (None, None, None)


@pytest.mark.parametrize(("window", "age", "left"), [(300, 299.5, "1"), (60, 20, "40"), (0.5, 0.25, "1")])
def test_spent_rate_limit_is_a_429_until_the_window_ends(clock, serve, window, age, left):
    client = serve(rate_limit=2, rate_window=window)
    token = client.new_token()
    fresh = ("2", "1", str(math.ceil(window)))
    assert client.call(token).limits == fresh
    clock.tick(age)
    for status in (200, 429, 429):
        reply = client.call(token)
        assert (reply.status, reply.limits) == (status, ("2", "0", left))
    assert reply.json == {"code": "429", "message": "Rate limit exceeded."}
    # A clock that is set back starts a new window, too. Otherwise the reset would be far away.
    for seconds in (window - age, -3600):
        clock.tick(seconds)
        reply = client.call(token)
        assert (reply.status, reply.limits) == (200, fresh)


def test_each_token_has_a_limit_which_concurrent_requests_spend_exactly_and_a_401_but_not_a_fault(serve, start):
    client = serve(rate_limit=10)
    token, other = client.new_token(), client.new_token()
    client.sandbox.fail_api_requests(status=500)
    assert client.call(token).limits == (None, None, None)
    barrier = threading.Barrier(16)
    asked = [start(lambda own: (barrier.wait(10), own.call(token)), serve(client.sandbox)) for _ in range(16)]
    assert sorted(each.result(10)[1].status for each in asked) == [200] * 10 + [429] * 6
    client.sandbox.revoke(other)
    assert [client.call(other).limits[1] for _ in range(2)] == ["9", "8"]
    client.sandbox.revoke()
    assert (client.call(token).status, client.call(token).limits[1]) == (401, "0")
