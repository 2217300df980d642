"""How a winner is chosen and confirmed."""

import math
import sys
from pathlib import Path

import pytest

from tglo_lightning.search import Candidate, Criterion, Evaluation, Finals

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from finals import replaced

ORIGINAL = Criterion.original()
CRITERIA = [Criterion.of("smoothing", [share]) for share in (0.1, 0.2, 0.3, 0.4)]
# Of the search, best last
FOUND = (0.1, 0.2, 0.3, 0.4)


def ran(scores, *, mode="max", found=FOUND, criteria=CRITERIA, **options):
    """Finals in which ``scores(criterion, stage, number)`` is the fitness, or an evaluation, of each training."""
    finals = Finals(**{"finalists": 2, "seeds": 2, "confirm": 3} | options)
    asked = []

    def train(stage, number, entrants):
        asked.append((stage, number, tuple(entrants)))
        values = [scores(criterion, stage, number) for criterion in entrants]
        return [value if isinstance(value, Evaluation) else Evaluation(value) for value in values]

    history = [Candidate.of(0, i, c, Evaluation(f)) for i, (c, f) in enumerate(zip(criteria, found, strict=True))]
    return finals.run(train, history, "CrossEntropyLoss", mode), asked


def better(criterion, stage, number):
    """Every candidate is better than the original, by something else from each seed; the third is the best."""
    return (0.0 if criterion == ORIGINAL else 1.0 + (criterion == CRITERIA[2])) + 0.01 * number * number


def noisy(criterion, stage, number):
    return better(criterion, stage, number) + (0.001 * number if criterion == ORIGINAL else 0)


def test_error_rates_and_power():
    """2,000 simulated searches each: the rates that the documentation states."""
    assert replaced(Finals(), 0.0) <= 0.1
    assert replaced(Finals(), -0.5) <= 0.02
    assert replaced(Finals(), 2.0) > 0.95


def test_the_finalists_are_the_best_of_the_search_and_the_choice_is_confirmed_on_other_seeds():
    outcome, asked = ran(noisy)
    chosen = CRITERIA[2]
    choice = [("choice", number, (CRITERIA[3], chosen)) for number in range(2)]
    assert asked == choice + [("confirmation", number, (chosen, ORIGINAL)) for number in range(3)]
    assert [f.criterion for f in outcome.finalists] == [chosen, CRITERIA[3]]
    assert [(f.name, f.found, f.generation) for f in outcome.finalists] == [
        ("finalist 2", 0.3, 0),
        ("finalist 1", 0.4, 0),
    ]
    assert (outcome.best.criterion, outcome.best.found, len(outcome.best.fitness)) == (chosen, 0.3, 3)
    assert (outcome.original.name, len(outcome.original.fitness)) == ("CrossEntropyLoss", 3)
    assert outcome.replaces
    assert outcome.p_value < 0.001


def test_minimising_mirrors_maximising():
    outcome, _ = ran(lambda *given: -noisy(*given), mode="min", found=[-f for f in FOUND])
    assert (outcome.best.criterion, outcome.replaces) == (CRITERIA[2], True)


def test_a_criterion_that_was_tried_twice_is_one_finalist_at_its_best():
    outcome, _ = ran(
        noisy, criteria=[CRITERIA[0], *CRITERIA[1:3], CRITERIA[0]], found=(0.1, 0.2, 0.3, 0.4), finalists=4
    )
    assert [f.found for f in sorted(outcome.finalists, key=lambda f: f.name)] == [0.4, 0.3, 0.2]


@pytest.mark.parametrize("gap", [0.0, -1.0])
def test_what_is_no_better_replaces_nothing(gap):
    outcome, _ = ran(lambda criterion, stage, number: number + gap * (criterion != ORIGINAL))
    assert not outcome.replaces
    assert outcome.best.mean == outcome.original.mean + gap


def test_an_improvement_that_may_be_chance_replaces_nothing_below_its_level():
    def doubtful(criterion, stage, number):
        return 0.0 if criterion == ORIGINAL else (1.0, 2.0, -0.5)[number]

    assert not ran(doubtful)[0].replaces
    assert ran(doubtful, level=0.3)[0].replaces


def test_one_seed_is_compared_without_a_test():
    outcome, _ = ran(better, confirm=1)
    assert (outcome.p_value, outcome.replaces) == (None, True)
    assert not ran(lambda *given: 1.0, confirm=1)[0].replaces


def test_without_a_choice_the_best_of_the_search_is_confirmed():
    outcome, asked = ran(noisy, seeds=0)
    assert [stage for stage, *_ in asked] == ["confirmation"] * 3
    assert outcome.best.criterion == CRITERIA[3]
    assert [f.fitness for f in outcome.finalists] == [(), ()]


def test_an_original_that_diverged_is_beaten_and_one_that_crashed_is_not():
    def lost(status):
        def scores(criterion, stage, number):
            if criterion == ORIGINAL and number == 1:
                return Evaluation(math.nan, status, error="killed")
            return noisy(criterion, stage, number)

        return ran(scores)[0]

    assert lost("diverged").replaces
    assert not lost("crashed").replaces
    assert lost("crashed").original.errors == ("crashed: killed",)


def test_a_finalist_that_fails_once_is_not_chosen_and_not_kept():
    def fails(stage_):
        def scores(criterion, stage, number):
            bad = criterion == CRITERIA[2] and stage == stage_ and number == 1
            return math.nan if bad else noisy(criterion, stage, number)

        return ran(scores)[0]

    assert fails("choice").best.criterion == CRITERIA[3]
    assert fails("choice").replaces
    assert math.isnan(fails("confirmation").best.mean)
    assert not fails("confirmation").replaces


def test_without_finalists_the_original_is_trained_alone():
    outcome, asked = ran(lambda criterion, *_: 1.0 if criterion == ORIGINAL else math.nan)
    assert (outcome.best, outcome.p_value, outcome.replaces) == (None, None, False)
    assert [entrants for stage, _, entrants in asked if stage == "confirmation"] == [(ORIGINAL,)] * 3


def test_the_original_among_the_candidates_replaces_nothing():
    outcome, _ = ran(lambda criterion, *_: float(criterion == ORIGINAL), criteria=[ORIGINAL, *CRITERIA[1:]])
    assert not outcome.replaces
    step = Criterion.original(0.3)
    outcome, _ = ran(
        lambda criterion, stage, number: number * 0.01 * (criterion == step) + (criterion == step),
        criteria=[*CRITERIA[:3], step],
    )
    assert outcome.replaces
    assert outcome.best.formula == "CrossEntropyLoss, learning rate x 0.3"


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("finalists", 0, ValueError),
        ("seeds", -1, ValueError),
        ("confirm", 0, ValueError),
        ("confirm", [3], TypeError),
        ("level", 0, ValueError),
        ("level", 1.5, ValueError),
        ("level", "0.05", TypeError),
    ],
)
def test_wrong_arguments_are_named(argument, value, error):
    with pytest.raises(error, match=f"`{argument}`"):
        Finals(**{argument: value})


def test_a_look_ends_clear_cases():
    def noise(number):
        return 0.01 * (number % 3)

    def clear(criterion, stage, number):
        return noise(number) + (1.0 - 0.3 * noise(number) if criterion != ORIGINAL else 0.0)

    def worse(criterion, stage, number):
        return noise(number) - (1.0 + 0.3 * noise(number) if criterion != ORIGINAL else 0.0)

    def unclear(criterion, stage, number):
        return 0.2 * (number % 5) * (-1 if criterion == ORIGINAL else 1) * (1 if number % 2 else -1.2)

    for scores, seeds, replaces in ((clear, 4, True), (worse, 4, False), (unclear, 10, False)):
        outcome, asked = ran(scores, confirm=10, look=4)
        assert sum(stage == "confirmation" for stage, *_ in asked) == seeds
        assert len(outcome.best.fitness) == len(outcome.original.fitness) == seeds
        assert outcome.replaces == replaces
    with_look, _ = ran(clear, confirm=4, look=0)
    assert ran(clear, confirm=10, look=4)[0].p_value == pytest.approx(2 * with_look.p_value)
    assert Finals(confirm=3, look=4).look == 0


def test_error_rates_and_power_of_the_small_search():
    small = Finals(3, 1, 10, look=4)
    assert replaced(small, 0.0) <= 0.06
    assert replaced(small, -0.5) <= 0.02
    assert replaced(small, 2.0) > 0.95


def test_the_original_is_no_finalist():
    outcome, _ = ran(better, criteria=[*CRITERIA[:3], ORIGINAL])
    assert ORIGINAL not in [finalist.criterion for finalist in outcome.finalists]
