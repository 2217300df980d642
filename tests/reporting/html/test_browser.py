"""The report in a real browser, without a network: no error, nothing blank, nothing too wide, light and dark."""

import pytest
from helpers import browser
from helpers.runs import finished, interrupt, searched

from tglo_lightning.reporting import write_report

pytest.importorskip("matplotlib")
pytestmark = browser.needed

SECTIONS = """return [...document.querySelectorAll("section")].map(
  (s) => [s.id, s.getBoundingClientRect().height, s.innerText.trim().length])"""
# Every picture: its size, how large its text is, and which texts are cut off
PICTURES = """return [...document.querySelectorAll(".picture svg")].map((p) => {
  const box = p.getBoundingClientRect();
  const texts = [...p.querySelectorAll("text")].filter((t) => t.textContent.trim());
  return {width: box.width, frame: p.parentElement.getBoundingClientRect().width,
    smallest: Math.min(...texts.map((t) => parseFloat(getComputedStyle(t).fontSize) * p.getScreenCTM().a)),
    clipped: texts.filter((t) => { const r = t.getBoundingClientRect();
      return r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1 || r.bottom > box.bottom + 1; })
      .map((t) => t.textContent)};
})"""
# Contrast of every text with the nearest background behind it, as in WCAG 2
CONTRASTS = """
const parse = (c) => c.match(/[\\d.]+/g).map(Number);
const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => v / 255)
  .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
  if (c.length < 4 || c[3] > 0.9) return c; } return [255, 255, 255]; };
return [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && [...e.childNodes].some(
    (n) => n.nodeType === 3 && n.textContent.trim())).map((e) => {
  const style = getComputedStyle(e), own = light(parse(e.closest("svg") ? style.fill : style.color));
  const other = light(behind(e.closest("svg")?.parentElement ?? e));
  return [(Math.max(own, other) + 0.05) / (Math.min(own, other) + 0.05), e.textContent.trim().slice(0, 40)];
}).sort((a, b) => a[0] - b[0])"""
COLOURS = """return [getComputedStyle(document.body).backgroundColor,
  getComputedStyle(document.querySelector(".picture text")).fill,
  getComputedStyle(document.querySelector("h1")).color]"""


@pytest.fixture(scope="module", name="browser")
def chromium(tmp_path_factory):
    with browser.chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    finished(folder / "whole", baselines=True)
    searched(folder / "interrupted")
    interrupt(folder / "interrupted", trainings=10)
    return {name: write_report(folder / name).as_uri() for name in ("whole", "interrupted")}


def show(browser, address, *, width, theme):
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    browser.get(address)


@pytest.mark.parametrize(
    ("name", "width", "theme", "count"),
    [
        ("whole", 1200, "light", 15),
        ("whole", 1200, "dark", 15),
        ("whole", 375, "dark", 15),
        ("interrupted", 375, "light", 4),
    ],
)
def test_the_report_in_a_browser(browser, pages, name, width, theme, count):
    show(browser, pages[name], width=width, theme=theme)
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    for section, height, characters in browser.execute_script(SECTIONS):
        assert height > 100, section
        assert characters > 60, section
    drawn = browser.execute_script(PICTURES)
    assert len(drawn) == count
    for each in drawn:
        assert each["width"] > 300
        assert each["width"] <= each["frame"] + 1
        assert each["smallest"] > 9
        assert each["clipped"] == []
    assert browser.execute_script(CONTRASTS)[0][0] > 4.5
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    requests = browser.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert [name for name in requests if not name.startswith("data:")] == []


def test_pictures_follow_the_theme_while_the_page_is_open(browser, pages):
    show(browser, pages["interrupted"], width=800, theme="light")
    light = browser.execute_script(COLOURS)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    dark = browser.execute_script(COLOURS)
    assert all(before != after for before, after in zip(light, dark, strict=True))
