"""Beside `vcrpy`: cassettes without the secret and the tokens, which replay all the same."""

import hashlib
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from freezegun import freeze_time

from requests_mentionme import MentionMeAuth
from requests_mentionme.sandbox import Sandbox

vcr = pytest.importorskip("vcr", reason="vcrpy is not installed")

TOKEN = re.compile(rb'("access_token"\s*:\s*")([^"]+)')


def hide_tokens(response: dict[str, Any]) -> dict[str, Any]:
    """Put a digest in the place of each token: they must differ, or a renewal would bring the very same."""
    hidden = TOKEN.sub(lambda found: found[1] + hashlib.sha256(found[2]).hexdigest()[:8].encode(), _body(response))
    return {**response, "body": {"string": hidden}}


def _body(response: dict[str, Any]) -> bytes:
    body: bytes = response["body"]["string"]
    return body


RECORDER = {
    "filter_headers": ["Authorization"],
    "filter_post_data_parameters": ["client_id", "client_secret"],
    "before_record_response": hide_tokens,
}


def healed_call(sandbox: Sandbox, auth: MentionMeAuth) -> list[int]:
    """Return the statuses of a call whose token is refused on the way."""
    auth.access_token()
    sandbox.revoke()
    coupon = requests.get(f"{sandbox.url}/api/merchant/v2/coupons/validate/SAMPLE", auth=auth)
    assert coupon.json()["validityResponseCode"] == "FOUND_REDEEMABLE"
    return [answer.status_code for answer in (*coupon.history, coupon)]


def test_a_cassette_holds_neither_the_secret_nor_a_token(sandbox: Sandbox, auth: MentionMeAuth, tmp_path: Path) -> None:
    """While it is recorded, the API gets the real ones."""
    with vcr.VCR(**RECORDER).use_cassette(tmp_path / "healed.yaml"):
        assert healed_call(sandbox, auth) == [401, 200]
    assert [request.token for request in sandbox.requests] == [None, sandbox.tokens[0], None, sandbox.tokens[1]]
    cassette = (tmp_path / "healed.yaml").read_text(encoding="utf-8")
    assert cassette.count("access_token") == 2
    for secret in (sandbox.client_id, sandbox.client_secret, *sandbox.tokens, "Bearer"):
        assert secret not in cassette


@pytest.mark.parametrize("recorder", [{}, RECORDER], ids=["unfiltered", "filtered"])
def test_a_cassette_replays_a_healed_401_without_a_server_years_later(
    sandbox: Sandbox, auth: MentionMeAuth, tmp_path: Path, recorder: dict[str, Any]
) -> None:
    """A token's life is counted from the replay on, by what the answer says of its length."""
    with vcr.VCR(**recorder).use_cassette(tmp_path / "healed.yaml"):
        healed_call(sandbox, auth)
    sandbox.stop()
    auth.invalidate()
    recorded = len(sandbox.requests)
    player = vcr.VCR(record_mode="none", **recorder)
    with freeze_time() as clock, player.use_cassette(tmp_path / "healed.yaml") as cassette:
        clock.tick(timedelta(days=1000))
        assert healed_call(sandbox, auth) == [401, 200]
        assert cassette.all_played
    assert len(sandbox.requests) == recorded


def test_tokens_that_all_go_by_one_name_are_not_told_apart_when_replayed(
    sandbox: Sandbox, auth: MentionMeAuth, tmp_path: Path
) -> None:
    """The renewal seems to bring the refused token again, so the 401 is returned: hide them by a digest instead."""

    def hide_badly(response: dict[str, Any]) -> dict[str, Any]:
        return {**response, "body": {"string": TOKEN.sub(rb"\1hidden", _body(response))}}

    recorder = vcr.VCR(**{**RECORDER, "before_record_response": hide_badly})
    with recorder.use_cassette(tmp_path / "healed.yaml"):
        healed_call(sandbox, auth)
    auth.invalidate()
    with recorder.use_cassette(tmp_path / "healed.yaml"):
        auth.access_token()
        replayed = requests.get(f"{sandbox.url}/api/merchant/v2/coupons/validate/SAMPLE", auth=auth)
    assert replayed.status_code == 401
