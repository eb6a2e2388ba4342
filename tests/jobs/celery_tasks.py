"""Celery tasks with an auth at module level, which works in each process that the worker forks.

    celery --app celery_tasks worker --pool prefork --concurrency 2

The worker imports this module once, and forks its processes from there. Making an auth sends nothing. Each process gets
a token of its own at its first task; see `redis_store.py` for how they share one.

A soft time limit works as everywhere: `SoftTimeLimitExceeded` reaches the task, also where it waits for a token, and
the next task of that process gets a token as if nothing had happened.
"""

import requests
from celery import Celery

from requests_mentionme import MentionMeAuth, TokenEndpointError

AUTH = MentionMeAuth.from_env()
COUPONS = f"{AUTH.environment.base_url}/api/merchant/v2/coupons/validate"

app = Celery("celery_tasks")
app.config_from_object("celeryconfig")  # a module with your broker


@app.task(bind=True, max_retries=5)
def validate_coupon(self, code):
    """Return what Mention Me says of a coupon code."""
    try:
        response = requests.get(f"{COUPONS}/{code}", auth=AUTH, timeout=10)
    except TokenEndpointError as error:
        # The token endpoint is overloaded or down. Where it named a time, there is no use in asking earlier.
        raise self.retry(exc=error, countdown=error.retry_after or 60) from error
    response.raise_for_status()
    return response.json()["validityResponseCode"]
