"""The report in a real browser, without a network: no error, nothing blank, nothing too wide, light and dark."""

import shutil

import pytest
from helpers.runs import finished, interrupt, searched

from tglo_lightning.reporting import write_report

pytest.importorskip("plotly")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium or no chromedriver on this machine")

SWITCHES = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
]
SECTIONS = """return [...document.querySelectorAll("section")].map(
  (s) => [s.id, s.getBoundingClientRect().height, s.innerText.trim().length])"""
# Every plot: its size, whether the drawing fills it, and where its texts end
PLOTS = """return [...document.querySelectorAll(".plot")].map((p) => {
  const box = p.getBoundingClientRect(), svg = p.querySelector("svg.main-svg").getBoundingClientRect();
  const texts = [...p.querySelectorAll("text")].filter((t) => t.textContent.trim() && t.getBoundingClientRect().width);
  return {width: box.width, svg: svg.width, marks: p.querySelectorAll("path.js-line, path.point, .points path").length,
    clipped: texts.filter((t) => { const r = t.getBoundingClientRect();
      return r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1 || r.bottom > box.bottom + 1; })
      .map((t) => t.textContent)};
})"""
COLOURS = """return [getComputedStyle(document.body).backgroundColor,
  getComputedStyle(document.querySelector(".plot .xtick text")).fill,
  getComputedStyle(document.querySelector("h1")).color]"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in [*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(120)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    finished(folder / "whole")
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
    ("name", "width", "theme", "plots"),
    [("whole", 1200, "light", 13), ("whole", 375, "dark", 13), ("interrupted", 375, "light", 3)],
)
def test_the_report_in_a_browser(browser, pages, name, width, theme, plots):
    show(browser, pages[name], width=width, theme=theme)
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    for section, height, characters in browser.execute_script(SECTIONS):
        assert height > 100, section
        assert characters > 60, section
    drawn = browser.execute_script(PLOTS)
    assert len(drawn) == plots
    for plot in drawn:
        assert plot["svg"] == pytest.approx(plot["width"], abs=2)
        assert plot["marks"] > 0
        assert plot["clipped"] == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return [...document.scripts].every((s) => !s.src)")


def test_plots_follow_the_theme_while_the_page_is_open(browser, pages):
    show(browser, pages["interrupted"], width=800, theme="light")
    light = browser.execute_script(COLOURS)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    dark = browser.execute_async_script(f"setTimeout(() => arguments[0]((() => {{{COLOURS}}})()), 300)")
    assert all(before != after for before, after in zip(light, dark, strict=True))
    assert browser.get_log("browser") == []
