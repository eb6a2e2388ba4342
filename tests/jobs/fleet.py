"""One of the processes of a machine that share a token through a folder.

    python fleet.py FOLDER SECONDS

A token is renewed for all: each process chooses a moment of its own for it, and mostly the first one asks the token
endpoint, and the others find the new token in the folder. The folder holds a live token: it belongs to one user alone.
"""

import sys
import time

import requests
from diskcache import Cache

from requests_mentionme import MentionMeAuth

PAUSE = 0.2  # seconds


def work(auth, seconds):
    """Validate a coupon code again and again, and return how often."""
    url = f"{auth.environment.base_url}/api/merchant/v2/coupons/validate/SAMPLE"
    requests_sent = 0
    deadline = time.monotonic() + seconds
    with requests.Session() as session:
        session.auth = auth
        while time.monotonic() < deadline:
            session.get(url, timeout=10).raise_for_status()
            requests_sent += 1
            time.sleep(PAUSE)
    return requests_sent


if __name__ == "__main__":
    folder, seconds = sys.argv[1:]
    with Cache(folder) as cache:
        print(work(MentionMeAuth.from_env(store=cache), float(seconds)))
