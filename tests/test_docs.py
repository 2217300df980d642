"""What the documentation shows is true: its code runs, its commands compose, its figures are what the package gives."""

import re
import shlex
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import browser, like_transformers
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from torch import nn

from tglo_lightning import TaylorGLO
from tglo_lightning.cli.commands import CONFIG_DIR
from tglo_lightning.losses import CrossEntropyLoss, robust
from tglo_lightning.search import Budget, Criterion
from tglo_lightning.theory import explain

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
# Code as a reader pastes it: what a page shows, and nothing else
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^ *(tglo-(?:train|attack|landscape)) (.+)$", re.MULTILINE)
SOURCES = [
    *PAGES,
    ROOT / "README.md",
    *sorted((ROOT / "recipes").glob("*/README.md")),
    *sorted(ROOT.glob("conf/*.yaml")),
]


class ModelOutput(dict):
    """As the models of transformers return it: a dict with its entries as attributes."""

    __getattr__ = dict.__getitem__


def code(page: Path) -> str:
    """The code of a page, each line where it stands in the page."""
    text, lines = page.read_text(encoding="utf-8"), []
    for block in BLOCK.finditer(text):
        lines += [""] * (text.count("\n", 0, block.start(1)) - len(lines))
        lines += block[1].splitlines()
    return "\n".join(lines)


@pytest.mark.parametrize("page", [page for page in PAGES if code(page)], ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    if page.stem == "robustness":
        pytest.importorskip("foolbox")
    monkeypatch.chdir(tmp_path)
    # Searches of a second, each with a report that would take as long
    monkeypatch.setattr("tglo_lightning.callbacks.report.report_quietly", lambda *_, **__: None)
    if find_spec("transformers") is None:
        monkeypatch.setitem(sys.modules, "transformers", like_transformers.stand_in())
    program = code(page)
    if page.stem == "index":  # the program of the README, which runs as it stands in `test_readme.py`
        assert "max_epochs=20" in program
        program = program.replace("max_epochs=20", "max_epochs=2")
    exec(compile(program, str(page), "exec"), {"__name__": "__main__"})


def test_the_loss_for_the_trainer_of_transformers():
    """On what `Trainer` hands over: outputs with logits, labels with -100, the labels of all accumulated batches."""
    [block] = [
        block for block in BLOCK.findall((ROOT / "docs" / "other-loops.md").read_text()) if "def for_trainer" in block
    ]
    space = {"nn": nn}
    exec(block, space)
    outputs = ModelOutput(logits=torch.randn(2, 5, 3, requires_grad=True))
    labels = torch.tensor([[0, 1, 2, -100, -100], [2, 2, -100, 0, 1]])
    flat = outputs.logits.flatten(0, 1)
    mean = F.cross_entropy(flat, labels.flatten())
    for loss in (space["summed"], CrossEntropyLoss(reduction="sum")):
        computed = space["for_trainer"](loss)
        torch.testing.assert_close(computed(outputs, labels), mean)
        torch.testing.assert_close(computed(outputs, labels, num_items_in_batch=torch.tensor(14)), mean * 7 / 14)
    found = Criterion.of("gce", [0.7]).build(space["summed"])
    space["for_trainer"](found)(outputs, labels, 14).backward()
    assert (outputs.logits.grad.abs().sum(-1) > 0).equal(labels != -100)
    # One label a sequence
    single = ModelOutput(logits=torch.randn(4, 3))
    expected = F.cross_entropy(single.logits, torch.arange(4) % 3)
    torch.testing.assert_close(space["for_trainer"](space["summed"])(single, torch.arange(4) % 3, 4), expected)


def yaml_of(page: str) -> str:
    """The one YAML block of a page."""
    [block] = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return block


def test_the_yaml_of_a_lightning_cli(tmp_path):
    pytest.importorskip("jsonargparse")
    from pytorch_lightning.cli import LightningCLI
    from pytorch_lightning.demos.boring_classes import BoringModel

    (tmp_path / "config.yaml").write_text(yaml_of("your-module.md"))
    args = ["--config", str(tmp_path / "config.yaml"), "--trainer.accelerator=cpu", "--trainer.logger=false"]
    cli = LightningCLI(BoringModel, run=False, save_config_callback=None, args=args)
    [search] = [callback for callback in cli.trainer.callbacks if isinstance(callback, TaylorGLO)]
    assert search.settings.generations == 10
    assert search.settings.budget == Budget(epochs=2, min_fitness_after=(1, 0.2))


def test_the_experiment_of_your_own(tmp_path):
    path = tmp_path / "experiment" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(yaml_of("configs.md"))
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("train", overrides=[f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"])
    assert (config.name, config.task.source, config.search.generations) == ("mine", "data.csv", 5)


def commands() -> list[tuple[str, str]]:
    """Every command of Hydra's that is shown anywhere, without what is said about it."""
    found = set()
    for path in SOURCES:
        for name, rest in COMMAND.findall(path.read_text(encoding="utf-8").replace("\\\n", " ")):
            words = shlex.split(re.split(r" {2,}|\s#", rest)[0])
            found.add((name.removeprefix("tglo-"), shlex.join(words)))
    return sorted(found)


def test_shown_commands_compose(tmp_path):
    shown = commands()
    assert len(shown) > 30
    parser = OverridesParser.create()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        for name, line in shown:
            words = [word for word in shlex.split(line) if "=" in word and not word.startswith("--")]
            if "mine" in line or "poly1" in line:  # of a config that a reader is to write
                continue
            overrides = []
            for override in parser.parse_overrides(words):
                value = next(iter(override.sweep_string_iterator())) if override.is_sweep_override() else None
                overrides.append(override.input_line if value is None else f"{override.get_key_element()}={value}")
            try:
                compose(name, overrides=overrides)
            except Exception as error:
                raise AssertionError(f"tglo-{name} {line}: {error}") from error


def test_the_table_of_losses_is_what_the_theory_says():
    names = {
        "cross-entropy": "cross_entropy",
        "cross-entropy, smoothing 0.1": CrossEntropyLoss(label_smoothing=0.1),
        "Brier score": "brier",
        "Baikal (2019)": "baikal",
        "TaylorGLO `mnist_published`": "mnist_published",
        "TaylorGLO `early_published`": "early_published",
        "cross-entropy's expansion of order 3": "cross_entropy_3",
        "MAE": "mae",
        "GCE, 0.7": "gce",
        "SCE, 0.1 and 1": "sce",
        "Taylor cross-entropy, 2": "taylor_ce",
        "forward correction, 0.2": "forward",
        "the loss for noisy labels, `robust`": robust(10),
    }
    page = ROOT / "docs" / "theory.md"
    space: dict = {}
    exec(compile(code(page), str(page), "exec"), space)
    names |= {"focal loss, 2": space["FocalLoss"](), "Poly-1, 2": space["Poly1Loss"]()}
    rows = page.read_text(encoding="utf-8").partition("<!-- table: losses -->")[2].strip().splitlines()
    rows = [row for row in rows[: rows.index("")] if row.startswith("|")][2:]
    table = {cells[0]: cells[1:] for cells in ([cell.strip() for cell in row.split("|")[1:-1]] for row in rows)}
    assert table.keys() == names.keys()
    for name, loss in names.items():
        told = explain(loss, 10)
        settles = told.equilibria[0] if told.equilibria else None
        expected = [f"{told.B:.4g}", f"{told.S:.4g}", f"{told.zero_error:.4g}", told.verdict]
        expected += [f"{settles.confidence:.4g}", f"{settles.label_smoothing:.4g}"] if settles else ["", ""]
        assert table[name] == expected, name
        assert told.stable, name


def test_the_table_of_versions_is_what_the_commands_run():
    def pinned(name):
        return dict(re.findall(r"^([\w-]+)==(\S+?)(?:;.*)?$", (ROOT / name).read_text(), re.MULTILINE)[::-1])

    newest, oldest = pinned("constraints.txt"), pinned("constraints-oldest.txt")
    project = (ROOT / "pyproject.toml").read_text()
    rows = re.findall(
        r"^\| (\w[\w-]+)[^|]* \| (\S+) \| (\S+)[^|]* \| (\S+) \|$",
        (ROOT / "docs" / "versions.md").read_text(),
        re.MULTILINE,
    )
    assert len(rows) == 9
    for name, required, runs, old in rows[1:]:
        assert f'"{name}{required}"' in project
        assert (runs.rstrip(","), old) == (newest[name], oldest[name]), name
    assert f'requires-python = "{rows[0][1]}"' in project
    assert "PYTHONS ?= 3.10 3.12 3.13" in (ROOT / "Makefile").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built with warnings as errors."""
    if find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed: pip install 'tglo-lightning[docs]'")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # the snippets and the API reference are found from there
        build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(folder)))
    return folder


def test_the_site_needs_no_network(site):
    loaded = re.compile(r'<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)="?(https?:)?//', re.IGNORECASE)
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not loaded.search(text), page
        assert 'class="arithmatex"' not in text, f"{page}: a formula that is not MathML"


@browser.needed
def test_the_site_is_searched_from_a_folder(site, tmp_path):
    """As a reader opens it: by a file, without a server, from a page in a folder of the site."""
    from selenium.webdriver.support.ui import WebDriverWait

    def found(driver):
        return [
            entry.get_attribute("href") for entry in driver.find_elements("css selector", ".md-search-result__link")
        ]

    with browser.chromium(tmp_path) as driver:
        driver.set_window_size(1280, 900)
        for page in ("index.html", "api/callbacks.html"):
            driver.get((site / page).as_uri())
            field = driver.find_element("css selector", ".md-search__input")
            field.click()
            field.send_keys("gradient masking")
            links = WebDriverWait(driver, 60).until(found)
            assert any(link.startswith((site / "robustness.html").as_uri()) for link in links), page
        assert driver.get_log("browser") == []


def test_every_public_name_has_its_reference(site):
    import importlib

    for room in (
        "attacks",
        "callbacks",
        "data",
        "evaluation",
        "losses",
        "models",
        "module",
        "reporting",
        "search",
        "theory",
    ):
        page = (site / "api" / f"{room}.html").read_text(encoding="utf-8")
        module = importlib.import_module(f"tglo_lightning.{room}")
        found = set(re.findall(rf'id="tglo_lightning\.{room}\.(\w+)', page))
        missing = set(module.__all__) - found
        assert missing == set()
        assert ":class:" not in page
        assert "&gt;&gt;&gt;</p>" not in page


def test_the_reference_of_the_callbacks_lists_what_is_passed_and_no_hook(site):
    page = (site / "api" / "callbacks.html").read_text(encoding="utf-8")
    listed = list(dict.fromkeys(re.findall(r'<h\d id="tglo_lightning\.callbacks\.([\w.]+)', page)))
    assert listed == ["TaylorGLO", "load_from_checkpoint", "AttractionMonitor", "RobustnessMonitor"]


def test_every_config_is_in_the_reference(site):
    page = (site / "configs.html").read_text(encoding="utf-8")
    for path in Path(CONFIG_DIR).glob("*/**/*.yaml"):
        assert f"<code>{path.stem}</code>" in page


def test_the_page_of_the_configs_lists_them_as_they_are():
    pytest.importorskip("mkdocs")
    spec = spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    hooks = module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = (ROOT / "docs" / "configs.md").read_text(encoding="utf-8")
    assert "| `digits_noisy` |" in page
    assert hooks.with_groups(page) == page, "copy what hooks.with_groups makes of docs/configs.md into it"
