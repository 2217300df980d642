import pytest

from tglo_lightning.reporting.html.blocks import function_of, table


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
    assert str(function_of(formula)) == drawn


def test_cells_are_escaped_unless_they_are_formulas():
    html = str(table("a < b", ["loss", "f"], [["<i>", function_of("h^2")]]))
    assert "a &lt; b" in html
    assert '<th scope="row">&lt;i&gt;</th><td class="formulas"><i>h</i><sup>2</sup></td>' in html
