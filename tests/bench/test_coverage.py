import numpy as np
import pytest

from bench.coverage import CASES, Case, coverage, seed_coverage

# of 150 simulations with 95 %, 90 to 99 % hold in 98 of 100 tries; python -m bench.coverage is the whole table


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_hold_the_truth_in_95_of_100_test_sets(grouped: bool) -> None:
    for metric, share in coverage(Case(rows=120, accuracy=0.8, grouped=grouped), 150).items():
        assert 0.9 <= share <= 0.99, metric


def test_a_simulated_classifier_has_the_accuracy_and_auc_it_is_said_to_have() -> None:
    case = Case(rows=200_000, accuracy=0.8, grouped=True)
    label, probability, group = case.draw(np.random.default_rng(0))
    assert ((probability >= 0.5) == label).mean() == pytest.approx(0.8, abs=0.005)
    ranks = np.argsort(np.argsort(probability))
    positives = label.sum()
    auc = (ranks[label == 1].sum() - positives * (positives - 1) / 2) / positives / (len(label) - positives)
    assert auc == pytest.approx(case.auc, abs=0.005)
    assert len(label) / len(np.unique(group)) == pytest.approx(2.5, abs=0.02)
    assert {case.rows for case in CASES} == {60, 150, 400, 1000}


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("between", [0.0, 0.03])
@pytest.mark.parametrize("same_rows", [True, False])
def test_the_interval_of_the_mean_over_seeds_holds_the_truth(seeds: int, between: float, same_rows: bool) -> None:
    # two seeds on the same rows tell little of the spread between seeds; a run's seeds split the rows anew
    assert seed_coverage(seeds, between, 1000, same_rows=same_rows) >= (0.9 if same_rows else 0.93)
