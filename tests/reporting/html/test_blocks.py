import pytest

from tglo_lightning.reporting.html.blocks import Formula, typeset


@pytest.mark.parametrize(
    ("formula", "drawn"),
    [
        ("-1.5 h^2 + 2 y (h - 0.5)", "−1.5\u00a0<i>h</i><sup>2</sup> + 2\u00a0<i>y</i>\u00a0(<i>h</i> − 0.5)"),
        ("1.2e-05 h - 3 y", "1.2×10<sup>−5</sup>\u00a0<i>h</i> − 3\u00a0<i>y</i>"),
        ("-(y - h)^2", "−(<i>y</i> − <i>h</i>)<sup>2</sup>"),
        ("0.19 y log(h), labels smoothed by 0.8", "0.19\u00a0<i>y</i>\u00a0log(<i>h</i>), labels smoothed by 0.8"),
        ("my <b>loss</b>", "my\u00a0&lt;b&gt;loss&lt;/b&gt;"),
    ],
)
def test_formulas_have_powers_and_signs(formula, drawn):
    assert str(typeset(Formula(formula))) == drawn
