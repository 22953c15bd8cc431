from controller.config import ScaleToZero
from controller.runtime.reconcile import Request
from controller.scale_to_zero import IdleTimers, Replicas

KEY = Request("ns", "r")
CONFIG = ScaleToZero(grace_period_seconds=60)


def _decide(timers: IdleTimers, now: float, *, needed: bool, config: ScaleToZero = CONFIG) -> Replicas:
    return timers.decide(KEY, wanted=2, needed=needed, config=config, now=now)


def test_a_runtime_that_nobody_needed_yet_gets_no_pods() -> None:
    timers = IdleTimers()
    assert _decide(timers, 0, needed=False) == Replicas(0)
    assert _decide(timers, 1, needed=False) == Replicas(0)


def test_pods_stay_for_the_grace_period() -> None:
    timers = IdleTimers()
    assert _decide(timers, 0, needed=True) == Replicas(2)
    assert _decide(timers, 10, needed=False) == Replicas(2, 60)
    assert _decide(timers, 30, needed=False) == Replicas(2, 40)
    assert _decide(timers, 70, needed=False) == Replicas(0)


def test_a_new_model_ends_the_grace_period() -> None:
    timers = IdleTimers()
    _decide(timers, 0, needed=True)
    _decide(timers, 10, needed=False)
    assert _decide(timers, 65, needed=True) == Replicas(2)
    assert _decide(timers, 80, needed=False) == Replicas(2, 60)


def test_switched_off_all_pods_stay() -> None:
    timers = IdleTimers()
    off = ScaleToZero(enabled=False)
    assert _decide(timers, 0, needed=False, config=off) == Replicas(2)
    # Switched on again, the pods that are there get their grace period.
    assert _decide(timers, 1, needed=False) == Replicas(2, 60)


def test_a_runtime_that_was_deleted_is_forgotten() -> None:
    timers = IdleTimers()
    _decide(timers, 0, needed=True)
    timers.forget(KEY)
    assert _decide(timers, 1, needed=False) == Replicas(0)
