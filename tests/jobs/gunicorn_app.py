"""A web application with an auth at module level, which serves all threads of a worker.

    gunicorn --preload --workers 4 --threads 8 gunicorn_app:application

With `--preload`, gunicorn imports this module once and forks the workers from there. That is fine: making an auth sends
nothing. Each worker gets a token of its own at its first request; see `redis_store.py` for how they share one.
"""

import json
from urllib.parse import quote

import requests

from requests_mentionme import MentionMeAuth

AUTH = MentionMeAuth.from_env()
COUPONS = f"{AUTH.environment.base_url}/api/merchant/v2/coupons/validate"


def application(environ, start_response):
    """Tell whether the coupon code in the path can be redeemed."""
    code = quote(environ["PATH_INFO"].removeprefix("/"), safe="")
    response = requests.get(f"{COUPONS}/{code}", auth=AUTH, timeout=10)
    response.raise_for_status()
    body = json.dumps({"validity": response.json()["validityResponseCode"]}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
