"""What clients notice of faults: nothing. `make test-faults`; minutes, so not part of `make test`.

Each scenario ends with a check that registry, caches and model servers agree (`bench.faults.agreed`).
"""

import pytest

from bench import faults

MOST_SECONDS_AFTER_A_WIPE = 30.0
pytestmark = pytest.mark.e2e


async def measured(scenario: str) -> dict[str, float]:
    return {figure: value for figure, value, _ in await faults.SCENARIOS[scenario]()}


async def test_no_request_fails_while_all_instances_are_replaced_one_by_one() -> None:
    assert (await measured("rollout"))["rollout_failed_requests"] == 0


async def test_no_request_that_enters_at_a_surviving_instance_fails_when_others_are_killed() -> None:
    assert (await measured("kill"))["kill_instance_failed_surviving"] == 0


async def test_no_request_fails_while_etcd_is_away_or_after_it_has_lost_everything() -> None:
    figures = await measured("etcd")
    assert figures["etcd_away_failed_requests"] == 0
    assert figures["etcd_wipe_failed_requests"] == 0
    assert figures["etcd_wipe_converged_s"] <= MOST_SECONDS_AFTER_A_WIPE


async def test_no_request_fails_when_a_model_server_loses_its_memory() -> None:
    assert (await measured("server"))["server_restart_failed_requests"] == 0
