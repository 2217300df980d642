"""What holds for every picture: SVG for a page that is light or dark, pixels, files; matplotlib may be missing."""

import re
import sys
from xml.etree import ElementTree

import pytest

from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.pictures import canvas
from tglo_lightning.theory import explain

matplotlib = pytest.importorskip("matplotlib")


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_colours_stand_out_from_the_paper(mode):
    paper = luminance(pictures.PALETTE["paper"][mode])
    for name, pair in pictures.PALETTE.items():
        lower, upper = sorted((paper, luminance(pair[mode])))
        ratio = (upper + 0.05) / (lower + 0.05)
        if name in ("ink", "muted"):
            assert ratio > 4.5, name
        elif name not in ("paper", "grid", "axis"):
            assert ratio > 3, name
    assert len({pair[0] for pair in pictures.PALETTE.values()}) == len(pictures.PALETTE)


@pytest.fixture(scope="module")
def figure():
    return pictures.explanation(explain("baikal", 10))


def test_svg_has_text_variables_and_nothing_of_its_own(figure):
    text = pictures.svg(figure)
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img"
    assert root.get("aria-label") == figure.get_label()
    assert root.get("width") is None
    texts = ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "ε = 1 − confidence in the true class" in texts
    assert set(re.findall(r"#[0-9a-f]{6}\b", text)) == set()
    assert set(re.findall(r"--plot-(\w+)", text)) <= pictures.PALETTE.keys()
    assert not re.search(r"<style|<metadata|http:(?!//www.w3.org/(2000/svg|1999/xlink))", text)
    ids = re.findall(r' id="([^"]*)"', text)
    assert all(text.count(f"#{each}") for each in ids)
    assert pictures.svg(pictures.explanation(explain("baikal", 10))) == text


def test_many_points_become_pixels_and_few_stay_shapes():
    @pictures.picture
    def scatter(count):
        drawn = canvas.new_figure(3.0)
        canvas.dots(drawn.add_subplot(), range(count), range(count))
        return drawn

    few, many = (pictures.svg(scatter(count)) for count in (50, 20_000))
    assert "data:image/png" not in few
    assert "data:image/png" in many
    assert len(many) < 200_000


def test_names_are_text_and_no_formulas():
    @pictures.picture
    def titled():
        drawn = canvas.new_figure(3.0)
        drawn.add_subplot().set_title("cost in $ <b> & $")
        drawn.set_label('a "quoted" </svg>')
        return drawn

    text = pictures.svg(titled())
    assert "cost in $ &lt;b&gt; &amp; $" in text
    assert text.count("</svg>") == 1


def test_files_and_pixels(figure, tmp_path):
    assert pictures.save(figure, tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")
    height, width, channels = pictures.pixels(figure).shape
    assert channels == 4
    assert min(height, width) > 600
    assert "pyplot" not in sys.modules or not matplotlib.pyplot.get_fignums()


def test_a_saved_svg_has_colours_for_light_and_dark(figure, tmp_path):
    text = pictures.save(figure, tmp_path / "a.svg").read_text()
    ElementTree.fromstring(text)
    assert set(re.findall(r"var\((--plot-\w+)\)", text)) <= set(re.findall(r"(--plot-\w+): #", text))
    for theme in pictures.themes():
        assert theme in text
    assert text.index("prefers-color-scheme: dark") > text.index(pictures.themes()[0])


def test_a_missing_matplotlib_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'tglo-lightning\[plots\]'"):
        pictures.explanation(explain("baikal", 10))
