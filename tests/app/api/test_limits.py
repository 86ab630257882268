"""How often, and how much: rate limits over a real Redis, and the quota of jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.auth import rates
from app.auth.rates import RateLimits
from app.http import admission
from app.settings import Settings
from app.store.sessions import Database
from workshop.keyed import bearing, id_of, make_key, with_keys
from workshop.services import ValkeyServer
from workshop.serving import serving
from workshop.working import Worker

SMALLEST = {"kind": "meta_train", "family": "quadratic", "seed": 7}


def with_redis(url: str, act: Callable[[Redis], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        redis = Redis.from_url(url, socket_timeout=1, retry=Retry(NoBackoff(), 0))
        try:
            return await act(redis)
        finally:
            await redis.aclose()

    return asyncio.run(run())


# --- rates --------------------------------------------------------------------------------------------------------


def test_two_processes_share_one_allowance_to_the_last_call(redis_url: str) -> None:
    async def call(redis: Redis) -> list[bool]:
        processes = [RateLimits("31/minute", redis) for _ in range(2)]
        return [(await processes[number % 2].hit("key_1")).allowed for number in range(50)]

    allowed = with_redis(redis_url, call)
    assert allowed == [True] * 31 + [False] * 19


def test_a_large_allowance_costs_few_round_trips_and_loses_little(redis_url: str) -> None:
    async def call(redis: Redis) -> tuple[int, int, list[int]]:
        processes = [RateLimits("5000/minute", redis) for _ in range(2)]
        before = (await redis.info("stats"))["total_commands_processed"]
        standings = [await processes[number % 2].hit("key_1") for number in range(6000)]
        after = (await redis.info("stats"))["total_commands_processed"]
        return sum(each.allowed for each in standings), after - before, [each.remaining for each in standings[:300:2]]

    allowed, commands, remaining = with_redis(redis_url, call)
    assert 5000 - 2 * 50 <= allowed <= 5000
    assert commands < 1500, "without parts it would take three for each of the 6,000 calls"
    assert all(earlier >= later for earlier, later in pairwise(remaining))


def test_many_at_once_take_no_more_than_there_is(redis_url: str) -> None:
    async def call(redis: Redis) -> list[rates.Standing]:
        limits = RateLimits("41/minute", redis)
        return await asyncio.gather(*(limits.hit(f"key_{number % 2}") for number in range(200)))

    standings = with_redis(redis_url, call)
    assert sum(each.allowed for each in standings[::2]) == 41
    assert sum(each.allowed for each in standings[1::2]) == 41
    assert {each.limit for each in standings} == {41}
    assert all(1 <= each.reset_seconds <= 61 for each in standings)


def test_the_allowance_comes_back_when_the_window_ends(redis_url: str) -> None:
    async def call(redis: Redis) -> list[bool]:
        limits = RateLimits("2 per 1 second", redis)
        allowed = [(await limits.hit("key_1")).allowed for _ in range(3)]
        await asyncio.sleep(1.1)
        return [*allowed, (await limits.hit("key_1")).allowed]

    assert with_redis(redis_url, call) == [True, True, False, True]


def test_while_redis_is_away_each_process_counts_its_own(
    valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def call(redis: Redis) -> list[bool]:
        limits = RateLimits("5/minute", redis)
        allowed = [(await limits.hit("key_1")).allowed for _ in range(3)]
        valkey.stop()
        began = time.monotonic()
        allowed += [(await limits.hit("key_1")).allowed for _ in range(8)]
        assert time.monotonic() - began < 3
        return allowed

    assert with_redis(valkey.url, call) == [True] * 3 + [True] * 5 + [False] * 3
    assert len([record for record in caplog.records if "each process counts its own" in record.getMessage()]) == 1


def test_a_bad_rate_is_refused_in_one_sentence(redis_url: str) -> None:
    for wrong in ("fast", "0/minute", "-1/minute", "6000", "10/fortnight", ""):
        with pytest.raises(ValueError, match="such as 6000/minute"):
            Settings(rate_limit=wrong)
    assert Settings(rate_limit="OFF").rate_limit == "off"

    async def made(redis: Redis) -> list[bool]:
        return [
            rates.rates_of(Settings(rate_limit=rate, auth=auth), redis) is not None  # type: ignore[arg-type]
            for rate, auth in ((None, "auto"), (None, "off"), (None, "on"), ("off", "on"), ("5/minute", "off"))
        ]

    assert with_redis(redis_url, made) == [False, False, True, False, True]


def test_a_key_that_calls_too_often_is_told_when_to_go_on(settings: Settings) -> None:
    keyed = with_keys(settings, rate_limit="5 per 30 seconds")
    with serving(keyed) as url, bearing(url, make_key(keyed)) as api, bearing(url, make_key(keyed)) as other:
        answers = [api.get("/families/quadratic", headers={"If-None-Match": "*"}) for _ in range(5)]
        for number, answer in enumerate(answers):
            assert answer.status_code in (200, 304)
            assert answer.headers["RateLimit-Policy"] == '"default";q=5;w=30'
            assert answer.headers["RateLimit"].startswith(f'"default";r={4 - number};t=')
        refused = api.get("/jobs")
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert 1 <= int(refused.headers["Retry-After"]) <= 31
        assert refused.headers["RateLimit"].startswith('"default";r=0;t=')
        assert other.get("/jobs").status_code == 200, "each key has its own"
        assert all(api.get(path).status_code == 200 for path in ("/healthz", "/readyz", "/", "/docs"))
        for _ in range(5):
            wrong = httpx.get(f"{url}/jobs", headers={"Authorization": "Bearer gs_wrong"})
            assert wrong.status_code == 401
        assert httpx.get(f"{url}/jobs").status_code == 429, "whoever tries keys is counted by address"
        assert other.get("/jobs").status_code == 200, "and takes nothing from those who have one"
        with bearing(url, make_key(keyed)) as unseen:
            assert unseen.get("/jobs").status_code == 429, "the database is not asked about one more"
        # of IPv6 a whole network guesses at once
        for number in range(5):
            guess = {"Authorization": "Bearer gs_wrong", "X-Forwarded-For": f"2001:db8::{number}"}
            assert httpx.get(f"{url}/jobs", headers=guess).status_code == 401
        with bearing(url, make_key(keyed)) as unseen:
            for address, status in (("2001:db8::f", 429), ("2001:db8:0:1::f", 200)):
                assert unseen.get("/jobs", headers={"X-Forwarded-For": address}).status_code == status


def test_without_keys_this_machine_is_never_limited_and_others_when_it_is_asked_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(settings.model_copy(update={"rate_limit": "3/minute"})) as url, httpx.Client(base_url=url) as api:
        answers = [api.get("/families") for _ in range(10)]
        assert {answer.status_code for answer in answers} == {200}
        assert "RateLimit" not in answers[0].headers
        # uvicorn believes the proxy on this machine
        elsewhere = [api.get("/families", headers={"X-Forwarded-For": "192.0.2.7"}).status_code for _ in range(4)]
        assert elsewhere == [200, 200, 200, 429]
        assert api.get("/families", headers={"X-Forwarded-For": "192.0.2.8"}).status_code == 200
        # of IPv6 whoever has one address has 2**64 of them
        within = ("2001:db8::1", "2001:db8::2", "2001:db8:0:0:1::", "2001:db8:0:0:8000::")
        spread = [api.get("/families", headers={"X-Forwarded-For": address}).status_code for address in within]
        assert spread == [200, 200, 200, 429]
        assert api.get("/families", headers={"X-Forwarded-For": "2001:db8:0:1::1"}).status_code == 200
        dressed = api.get("/families", headers={"X-Forwarded-For": "::ffff:192.0.2.7"})
        assert dressed.status_code == 429, "an IPv4 address is itself"
        monkeypatch.setattr(admission, "is_loopback", lambda _: False)
        assert "RateLimit" in api.get("/families").headers


# --- quota --------------------------------------------------------------------------------------------------------


@pytest.mark.both_databases
def test_a_key_has_no_more_jobs_than_it_may_however_many_ask_at_once(
    app_settings: Settings, database: Database
) -> None:
    keyed = with_keys(app_settings, max_active_jobs=3)
    usual, large = make_key(keyed), make_key(keyed, max_active_jobs=4)
    with serving(keyed) as url, bearing(url, usual) as api, bearing(url, large) as other:
        assert api.get("/jobs").status_code == 200
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: api.post("/jobs", json=SMALLEST), range(12)))
        accepted = [answer.json()["id"] for answer in answers if answer.status_code == 202]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert (len(accepted), len(refused)) == (3, 9)
        assert refused[0].json()["code"] == "quota_exceeded"
        assert "3 queued and running jobs and may have 3" in refused[0].json()["detail"]
        assert refused[0].headers["Retry-After"] == "60"
        assert [other.post("/jobs", json=SMALLEST).status_code for _ in range(5)] == [202] * 4 + [429]
        # A running job counts, one that has ended does not, and a refused request leaves no trace of itself.
        worker = Worker(keyed, database, accepted[0])
        once = {"Idempotency-Key": "later"}
        assert api.post("/jobs", json=SMALLEST, headers=once).status_code == 429
        worker.fail("it broke")
        worker.close()
        assert api.post("/jobs", json=SMALLEST, headers=once).status_code == 202
        assert api.post("/jobs", json=SMALLEST, headers=once).headers["Idempotent-Replayed"] == "true"
        # Nor is a retry a way around it.
        assert api.post(f"/jobs/{accepted[0]}/retry").json()["code"] == "quota_exceeded"
        assert api.get(f"/jobs/{accepted[0]}").json()["status"] == "failed"
        assert api.post(f"/jobs/{accepted[1]}/cancel").status_code == 200
        assert api.post(f"/jobs/{accepted[0]}/retry").status_code == 202
        listed = {key["id"]: key["max_active_jobs"] for key in _keys(url, keyed)}
        assert (listed[id_of(usual)], listed[id_of(large)]) == (None, 4)


def test_a_key_s_own_limit_counts_whatever_the_server_s_is(app_settings: Settings) -> None:
    keyed = with_keys(app_settings, max_active_jobs=10_000)
    small, large = make_key(keyed, max_active_jobs=2), make_key(keyed, max_active_jobs=10_000)
    with serving(keyed) as url, bearing(url, small) as api, bearing(url, large) as other:
        assert [api.post("/jobs", json=SMALLEST).status_code for _ in range(3)] == [202, 202, 429]
        once = {"Idempotency-Key": "a"}
        assert [other.post("/jobs", json=SMALLEST, headers=once).status_code for _ in range(2)] == [202] * 2
        assert [other.post("/jobs", json=SMALLEST).status_code for _ in range(3)] == [202] * 3
        assert len(other.get("/jobs").json()["data"]) == 6
    low = keyed.model_copy(update={"max_active_jobs": 1})
    with serving(low) as url, bearing(url, large) as other:
        assert other.post("/jobs", json=SMALLEST).status_code == 202


def _keys(url: str, settings: Settings) -> list[dict[str, Any]]:
    with bearing(url, make_key(settings, "admin")) as admin:
        found: list[dict[str, Any]] = admin.get("/keys").json()["data"]
    return found


def test_jobs_without_a_key_have_no_quota(settings: Settings) -> None:
    with serving(settings.model_copy(update={"max_active_jobs": 1})) as url, httpx.Client(base_url=url) as api:
        assert [api.post("/jobs", json=SMALLEST).status_code for _ in range(3)] == [202] * 3
