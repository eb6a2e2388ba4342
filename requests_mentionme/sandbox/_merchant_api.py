"""The Merchant API: its six documented endpoints, and made-up data that depends on the request alone."""

import json
import re
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast
from urllib.parse import unquote

from requests_mentionme.sandbox._grants import Admission, Grants
from requests_mentionme.sandbox._messages import Answer, RefusalError, Request, json_answer, member, parsed

_ROOT = "/api/merchant/v2/"
_COUPON_PATH = re.compile(r"coupons/validate/([^/]+)")
_LARGEST_BATCH = 100  # identifiers


def answer_api_request(request: Request, grants: Grants) -> Answer:
    """Return the answer of the Merchant API, which tells the rate limit whatever its status is."""
    if not request.path.startswith(_ROOT):
        raise RefusalError(404, "Not found.")
    path = request.path.removeprefix(_ROOT)
    coupon = _COUPON_PATH.fullmatch(path)
    endpoints = _ENDPOINTS.get("coupons/validate/{coupon_code}" if coupon else path, {})
    subject = coupon[1].encode("latin-1") if coupon else request.body
    # All methods of a path are of one group. Unknown paths share a group without a name.
    group = next((endpoint.group for endpoint in endpoints.values()), "")
    admission = grants.spend(request.token, group)
    try:
        endpoint = _admit(request.method, endpoints, admission)
        answer = json_answer(endpoint.answer(subject))
    except RefusalError as refusal:
        answer = refusal.answer
    return answer._replace(headers={**answer.headers, **admission.headers})


class _Endpoint(NamedTuple):
    """What answers a body (or a coupon code), which rate limit counts it, and which scopes it needs."""

    answer: Callable[[bytes], dict[str, object]]
    group: str
    scopes: frozenset[str] = frozenset()


def _admit(method: str, endpoints: Mapping[str, _Endpoint], admission: Admission) -> _Endpoint:
    """Return the endpoint that the request asks for, if nothing speaks against it."""
    if admission.refusal is not None:
        raise RefusalError(401, admission.refusal)
    if admission.remaining < 0:
        raise RefusalError(429, "Rate limit exceeded.")
    if not endpoints:
        raise RefusalError(404, "Not found.")
    endpoint = endpoints.get("GET" if method == "HEAD" else method)
    if endpoint is None:
        raise RefusalError(405, "Wrong method.", {"Allow": ", ".join(endpoints)})
    missing = endpoint.scopes - admission.scopes
    if missing:
        raise RefusalError(403, f"Missing scope: {' '.join(sorted(missing))}.")
    return endpoint


def _get_customers(body: bytes) -> dict[str, object]:
    found, errors = _look_up(body)
    if not found:
        raise RefusalError(404, "None of these customers was found.")
    return {"data": [_customer(identifier) for identifier in found], "errors": errors}


def _queue_customers(body: bytes) -> dict[str, object]:
    accepted, errors = _look_up(body)
    return {"accepted": accepted, "errors": errors}


def _get_rewards(body: bytes) -> dict[str, object]:
    given = cast("object", member(parsed(body), "identifier", dict))
    identifier = _identifier(given)
    if identifier["type"] != "email":
        raise RefusalError(400, "The type must be email.")
    if _is_unknown(identifier):
        raise RefusalError(404, "This customer was not found.")
    customer = _customer(identifier)
    owner = {"customerId": customer["customerId"], "email": customer["email"]}
    reward = {"id": customer["mentionMeCustomerId"], **json.loads(_REWARD)}
    return {"data": {"customer": owner, "rewards": [reward]}}


def _validate_coupon(code: bytes) -> dict[str, object]:
    validity = {"SAMPLE": "FOUND_REDEEMABLE", "USED": "FOUND_NOT_REDEEMABLE"}.get(unquote(code))
    if validity is None:
        return {"validityResponseCode": "NOT_FOUND"}
    return {"validityResponseCode": validity, **json.loads(_COUPON)}


def _look_up(body: bytes) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return the identifiers of known customers, and an error for each of the others."""
    given = cast("list[object]", member(parsed(body), "identifiers", list))
    if len(given) > _LARGEST_BATCH:
        raise RefusalError(400, f"There may be {_LARGEST_BATCH} identifiers at most.")
    identifiers = [_identifier(item) for item in given]
    known = [identifier for identifier in identifiers if not _is_unknown(identifier)]
    unknown = [identifier for identifier in identifiers if _is_unknown(identifier)]
    errors = [{"value": identifier["value"], "reason": "notFound"} for identifier in unknown]
    return known, errors


def _identifier(value: object) -> dict[str, str]:
    """Return an identifier. Its type may be any text, since the documentation names only one type."""
    return {"type": member(value, "type", str), "value": member(value, "value", str)}


def _is_unknown(identifier: Mapping[str, str]) -> bool:
    return identifier["value"].lower().endswith("@unknown.example")


def _customer(identifier: Mapping[str, str]) -> dict[str, object]:
    """Return the customer of an identifier, who is always the same."""
    value = identifier["value"]
    number = zlib.crc32(value.encode(errors="replace"))
    customer: dict[str, object] = {
        "customerId": f"C-{number}",
        "email": f"customer-{number}@shop.example",
        "mentionMeCustomerId": number,
        **json.loads(_CUSTOMER),
    }
    customer["email" if identifier["type"] == "email" else "customerId"] = value
    return customer


_CUSTOMER = """{
  "firstname": "Ada", "surname": "Example", "phoneNumbers": ["+440000000000"],
  "profileUrl": "https://demo.mention-me.com/", "offers": {"active": []}, "nps": {"recent": []},
  "createdDate": "2026-01-02T03:04:05Z", "lastPurchaseDate": "2026-01-02T03:04:05Z",
  "receivingEmails": true, "suspectedOfGaming": false,
  "metrics": {"successfulReferrals": 0, "shareCount": {"all": 0}},
  "segments": {"ecrStatus": "high"}
}"""
_REWARD = """{
  "fulfilledBy": "merchant", "amount": 10, "description": "10 off", "beforePurchase": false,
  "minimumFriendsRequired": 1, "spendConstraint": 0, "callToActionUrl": "https://shop.example/",
  "couponCode": "SAMPLE", "couponLink": "https://shop.example/?c=SAMPLE", "securityCode": "0",
  "expiryDate": "2036-12-31T00:00:00Z"
}"""
_COUPON = """{
  "validityResponseDescription": null, "rewardType": "AMOUNT", "rewardAmount": 10.0,
  "currencyCode": "GBP", "description": null
}"""

_READ = frozenset({"customers:read"})
_WRITE = frozenset({"customers:write"})
_DELETE = frozenset({"customers:delete"})
_ENDPOINTS: Mapping[str, Mapping[str, _Endpoint]] = {
    "customers": {
        "POST": _Endpoint(_get_customers, "customers", _READ),
        "DELETE": _Endpoint(_queue_customers, "customers", _DELETE),
    },
    "customers/lapse": {"POST": _Endpoint(_queue_customers, "customers", _WRITE)},
    "customers/rewards": {"POST": _Endpoint(_get_rewards, "rewards", _READ | {"rewards:read"})},
    "referee/eligibility": {"POST": _Endpoint(_queue_customers, "referee", _WRITE)},
    "coupons/validate/{coupon_code}": {"GET": _Endpoint(_validate_coupon, "coupons")},
}
