"""Several spaces at once: presets, random draws, then CMA-ES around the best."""

import json
import math

from tglo_lightning.search import Portfolio, ShapeSpace

POPULATION = 5


def begun():
    strategy = Portfolio(["original", "gce", "smoothing"], rates=[1.0, 0.3], explore=14)
    strategy.start(ShapeSpace().for_task(10), POPULATION, seed=1)
    return strategy


def cost(criterion):
    """Least for GCE with q = 0.3 at half the learning rate; label smoothing fails."""
    if not criterion.losses or criterion.losses[0].family != "gce":
        return math.nan if criterion.losses else 10.0
    return abs(criterion.losses[0].theta[0] - 0.3) + abs(math.log(2 * criterion.step))


def generation(strategy):
    criteria = strategy.ask()
    strategy.tell([cost(criterion) for criterion in criteria])
    return criteria


def test_presets_then_draws_then_the_best_is_refined():
    strategy = begun()
    tried = [criterion for _ in range(3) for criterion in generation(strategy)]
    steps = [criterion.step for criterion in tried[:6]]
    assert steps[:3] == [1.0] * 3
    assert all(math.isclose(step, 0.3) for step in steps[3:])
    names = [criterion.losses[0].family if criterion.losses else "original" for criterion in tried]
    assert names == ["original", "gce", "smoothing"] * 5
    refined = [criterion for _ in range(8) for criterion in generation(strategy)]
    assert {criterion.losses[0].family for criterion in refined} == {"gce"}
    assert min(map(cost, refined)) < min(map(cost, tried[1::3]))


def test_a_state_goes_on_to_the_last_bit():
    whole, states, expected = begun(), [], []
    for _ in range(7):
        states.append(json.dumps(whole.state_dict(), allow_nan=False))
        expected.append(generation(whole))
    for number in range(1, 7):
        restored = begun()
        restored.load_state_dict(json.loads(states[number]))
        assert [generation(restored) for _ in range(number, 7)] == expected[number:]
