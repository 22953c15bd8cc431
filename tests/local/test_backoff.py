from local.backoff import MAXIMUM_SECONDS, RESET_SECONDS, RestartBackoff


def test_the_first_restart_is_at_once_and_the_next_ones_wait_longer() -> None:
    backoff = RestartBackoff()
    assert [backoff.after_run(0) for _ in range(5)] == [0, 1, 2, 4, 8]


def test_the_wait_has_a_limit() -> None:
    backoff = RestartBackoff()
    assert [backoff.after_run(0) for _ in range(20)][-1] == MAXIMUM_SECONDS


def test_a_long_run_is_forgiven() -> None:
    backoff = RestartBackoff()
    for _ in range(5):
        backoff.after_run(0)
    assert backoff.after_run(RESET_SECONDS) == 0
