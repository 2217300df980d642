import pytest

from tglo_lightning.cli.comparison import Scores, fresh_seeds, welch_tests


def test_fresh_seeds_differ_and_repeat():
    seeds = fresh_seeds(0, 5)
    assert seeds == fresh_seeds(0, 5)
    assert len({*seeds, *fresh_seeds(1, 5)}) == 10


def test_better_is_higher_accuracy_and_lower_nll():
    original = Scores(test={"acc": [0.6, 0.62, 0.64], "nll": [1.0, 1.1, 1.2]})
    better = Scores(test={"acc": [0.8, 0.82, 0.84], "nll": [0.5, 0.6, 0.7]})
    for first, second, close in ((original, better, 0.0), (better, original, 1.0)):
        tests = welch_tests({"original": first, "metalearned": second})
        for metric in ("acc", "nll"):
            assert tests[metric]["p_one_sided"] == pytest.approx(close, abs=0.01)
            assert tests[metric]["p_two_sided"] < 0.02


def test_no_test_without_a_metalearned_loss():
    assert welch_tests({"original": Scores(test={"acc": [0.5, 0.6]})}) == {}
