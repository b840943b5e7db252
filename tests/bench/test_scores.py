import math

import pytest
from scipy.stats import binomtest

from bench.report.scores import Score, difference_of, scores_of
from bench.report.summary import Summary


def wilson(hits: int, of: int) -> Score:
    ends = binomtest(hits, of).proportion_ci(0.95, method="wilson")
    return Score(value=hits / of, low=ends.low, high=ends.high)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [  # Newcombe, Stat. Med. 17 (1998) 873, Table II, method 10, (a), (b), (e), (g)
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 10), -0.2775, 0.2775),
    ],
)
def test_a_difference_of_wilson_intervals_is_newcombes(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    gap = difference_of(wilson(*first), wilson(*second))
    assert (gap.low, gap.high) == pytest.approx((low, high), abs=5e-5)
    mirrored = difference_of(wilson(*second), wilson(*first))
    assert (mirrored.low, mirrored.high) == pytest.approx((-gap.high, -gap.low))


def test_without_an_interval_there_is_a_difference_all_the_same() -> None:
    gap = difference_of(Score(value=0.9), Score(value=0.7, low=0.6, high=0.8))
    assert gap.value == pytest.approx(0.2)
    assert math.isnan(gap.low)
    assert math.isnan(gap.high)


def test_scores_are_those_of_the_cells_that_are_done() -> None:
    done = Summary(
        protocol="paper",
        cell="x",
        status="done",
        values={"accuracy": 0.8, "auc": math.nan},
        intervals={"accuracy": (0.7, 0.9), "auc": (math.nan, math.nan)},
    )
    scores = scores_of([done, Summary(protocol="paper", cell="y", status="failed")])
    assert scores.keys() == {("paper", "x", "accuracy"), ("paper", "x", "auc")}
    assert scores["paper", "x", "accuracy"] == Score(value=0.8, low=0.7, high=0.9)
    assert math.isnan(scores["paper", "x", "auc"].value)
    assert scores_of([]) == {}


@pytest.mark.parametrize(
    ("score", "plain", "signed"),
    [
        (Score(value=0.7, low=0.65, high=0.7524), "0.700 (0.650–0.752)", "+0.700 (+0.650 to +0.752)"),
        (Score(value=0.05, low=-0.01, high=0.11), "0.050 (−0.010–0.110)", "+0.050 (−0.010 to +0.110)"),
        (Score(value=-0.2), "−0.200", "−0.200"),
        (Score(value=0.0001), "0.000", "0.000"),
        (Score(), "–", "–"),
    ],
)
def test_a_score_is_shown_with_its_interval(score: Score, plain: str, signed: str) -> None:
    assert score.shown("accuracy") == plain
    assert score.shown("accuracy", signed=True) == signed
