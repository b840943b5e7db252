"""The clock, followed call by call on a clock of our own, and its intervals, held against what is known of them."""

import numpy as np
import pytest

import bench.latency
from bench.latency import CALLS, quantile, ratio, throughput, time_calls


class Clock:
    """Time that passes only when a call takes it."""

    def __init__(self) -> None:
        self.now, self.log = 0.0, list[str]()

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.log.append("pause")

    def call(self, name: str, seconds: float) -> None:
        self.now += seconds
        self.log.append(name)

    def wait(self, seconds: float = 0.0) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(bench.latency, "time", clock)
    return clock


def test_every_engine_is_visited_in_every_round(clock: Clock) -> None:
    calls = {"quick": lambda: clock.call("quick", 0.04), "slow": lambda: clock.call("slow", 0.5)}
    times = time_calls(calls, clock.wait, rounds=3, visit_s=0.1)
    before, *rounds = " ".join(clock.log).split("pause quick quick quick quick pause slow")
    assert before.split() == ["quick", "slow"]  # how many calls make a visit
    assert len(rounds) == 3  # one untimed call and three timed ones, or one where one fills the visit
    assert times["quick"].shape == (3, 3)
    assert times["slow"].shape == (3, 1)
    assert times["quick"] == pytest.approx(0.04)
    assert times["slow"] == pytest.approx(0.5)


def test_the_time_ends_when_the_device_has_finished(clock: Clock) -> None:
    times = time_calls({"gpu": lambda: clock.call("gpu", 0.001)}, lambda: clock.wait(0.2), rounds=2, visit_s=0.1)
    assert times["gpu"] == pytest.approx(0.201)


def test_a_visit_has_a_most_and_a_least_of_calls(clock: Clock) -> None:
    calls = {"quick": lambda: clock.call("quick", 1e-6), "slow": lambda: clock.call("slow", 100.0)}
    times = time_calls(calls, clock.wait, rounds=2)
    assert (times["slow"].shape[1], times["quick"].shape[1]) == CALLS


def test_what_is_to_be_sampled_is_sampled_between_rounds(clock: Clock) -> None:
    time_calls({"one": lambda: clock.call("one", 1)}, clock.wait, rounds=4, between=lambda: clock.log.append("sample"))
    assert clock.log == ["one", *["pause", "one", "sample"] * 4]


def test_estimates_are_those_of_numpy() -> None:
    seconds = np.random.default_rng(0).gamma(4, 0.01, (10, 20))
    p50, p90, rate = quantile(seconds, 0.5), quantile(seconds, 0.9), throughput(seconds, 32)
    assert p50.value == pytest.approx(1000 * np.median(seconds))
    assert p90.value == pytest.approx(1000 * np.quantile(seconds, 0.9))
    assert rate.value == pytest.approx(200 * 32 / seconds.sum())
    for one in (p50, p90, rate):
        assert one.low < one.value < one.high
        assert one.n == 200


def test_an_interval_covers_the_truth_when_rounds_differ_and_calls_of_a_round_do_not() -> None:
    draw, covered = np.random.default_rng(1), 0
    for _ in range(200):
        seconds = 0.01 * np.exp(0.1 * draw.standard_normal((10, 1)) + 0.01 * draw.standard_normal((10, 20)))
        interval = quantile(seconds, 0.5)
        covered += interval.low <= 10.0 <= interval.high
    assert 0.91 <= covered / 200 <= 0.99  # over the calls it would be 30 %


def test_a_ratio_does_not_feel_what_slows_both() -> None:
    draw = np.random.default_rng(2)
    slow = np.exp(0.5 * draw.standard_normal((10, 1)))
    engine = 0.01 * slow * np.exp(0.01 * draw.standard_normal((10, 20)))
    baseline = 0.03 * slow * np.exp(0.01 * draw.standard_normal((10, 5)))
    one = ratio(baseline, engine)
    assert one.low <= 3.0 <= one.high
    assert one.high / one.low < 1.1
    assert quantile(engine, 0.5).high / quantile(engine, 0.5).low > 1.3


def test_the_baseline_is_one_and_has_no_interval() -> None:
    seconds = np.random.default_rng(3).random((10, 3))
    one = ratio(seconds, seconds)
    assert one.value == 1
    assert np.isnan([one.low, one.high]).all()
