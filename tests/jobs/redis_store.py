"""Processes, on any number of machines, that share a token through redis.

    export REDIS_URL=redis://localhost:6379
    python redis_store.py SAMPLE USED

A client of redis is a store as it is, whether it answers bytes or, with `decode_responses=True`, text. What it holds is
a live token: let nobody read it who may not use the API.

There is one entry for each API key, and it needs no time to live: a token that has expired is not used, and the next
one takes its place. A redis that fails costs a warning and a token request. One that hangs would make the request wait,
so the client has timeouts.

The client can be used after a fork. It can't be pickled, and neither can an auth that holds it: in a pool of processes,
make both in the initializer, as `pool.py` does.
"""

import os
import sys

import redis
import requests

from requests_mentionme import MentionMeAuth

STORE = redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=2, socket_connect_timeout=2)
AUTH = MentionMeAuth.from_env(store=STORE)

if __name__ == "__main__":
    for code in sys.argv[1:]:
        url = f"{AUTH.environment.base_url}/api/merchant/v2/coupons/validate/{code}"
        response = requests.get(url, auth=AUTH, timeout=10)
        response.raise_for_status()
        print(response.json()["validityResponseCode"])
