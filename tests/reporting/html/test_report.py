"""The report of a run, as text: what it says, what it says is missing, what it escapes."""

import json
import random
import re
import shutil
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from helpers.runs import attacked, finished, interrupt, record, searched

from tglo_lightning.cli.report import main
from tglo_lightning.reporting import pictures, write_report
from tglo_lightning.reporting.html import report_quietly
from tglo_lightning.reporting.html.files import Fit, RunFiles, read_run
from tglo_lightning.reporting.html.headline import headline as html_headline
from tglo_lightning.reporting.numbers import p_value
from tglo_lightning.search import Candidate, Criterion, Evaluation, Finalist, SearchResult, SearchSettings

pytest.importorskip("matplotlib")
IDS = ["comparison", "loss", "why", "search", "finalists", "curves", "attraction", "robustness", "setup"]


class Page(HTMLParser):
    """The text of a page by section, its tables and plots."""

    def __init__(self, text):
        super().__init__()
        self.sections, self.missing, self.tables, self.pictures = {"header": ""}, [], [], []
        self.at, self.open, self.silent, self.tags = "header", [], False, set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.add(tag)
        if tag == "section":
            self.at = given["id"]
            self.sections[self.at] = ""
        if "missing" in given.get("class", ""):
            self.missing.append(self.at)
        if tag == "table":
            self.tables.append([])
        if tag in ("caption", "th"):
            self.tables[-1].append((tag, given.get("scope")))
        if given.get("role") == "img":
            self.pictures.append(given["aria-label"])
        self.silent = tag in ("script", "style")

    def handle_endtag(self, tag):
        self.silent = False

    def handle_data(self, data):
        if not self.silent:
            self.sections[self.at] += data


def words(text):
    return " ".join(text.split())


@pytest.fixture
def undrawn(monkeypatch):
    """Leave out the pictures, which take most of the time."""
    for each in set(pictures.__all__) - {"PALETTE", "svg", "themes"}:
        monkeypatch.setattr(pictures, each, lambda *_: SimpleNamespace(get_label=str))
    monkeypatch.setattr(pictures, "svg", lambda _: "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "noisy"
    finished(path)
    return path


@pytest.fixture(scope="module")
def text(folder):
    return write_report(folder).read_text()


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_headline_says_by_how_much_and_how_sure(page, folder):
    told = words(page.sections["header"])
    losses = json.loads((folder / "result.json").read_text())["losses"]
    means = {kind: loss["test"]["acc"]["mean"] for kind, loss in losses.items()}
    assert "The metalearned loss beats CrossEntropyLoss." in told
    assert f"{means['original']:.4f}" in told
    assert f"{means['metalearned']:.4f}" in told
    assert f"{means['metalearned'] - means['original']:+.4f} in test/acc: very unlikely to be chance" in told
    assert "Paired t-test, n = 5 seeds: 95 % confidence interval" in told.replace("\u00a0", " ")
    assert "Net · 600 training samples · 10 classes · 5 fresh seeds for each loss, tested on test data" in told
    assert "36 trainings" in told
    assert "worse than" not in told


@pytest.mark.parametrize(
    ("mean", "title", "tone"),
    [
        (0.8, "The metalearned loss beats the original, the tuned original and the best known loss.", "good"),
        (
            0.9,
            "The metalearned loss beats the original and the tuned original and ties with the best known loss.",
            "open",
        ),
        (
            0.99,
            "The metalearned loss beats the original and the tuned original and is worse than the best known loss.",
            "open",
        ),
    ],
)
def test_the_headline_compares_with_the_best_of_the_baselines(tmp_path, mean, title, tone, undrawn):
    finished(tmp_path, baselines=True)
    result = json.loads((tmp_path / "result.json").read_text())
    known = result["losses"]["known"]["test"]["acc"]
    known["values"] = [value + mean - known["mean"] for value in known["values"]]
    (tmp_path / "result.json").write_text(json.dumps(result))
    head = html_headline(read_run(tmp_path))
    assert (head.title, head.tone) == (title, tone)
    assert "against best known loss (GCELoss)" in head.sure
    assert [label for label, *_ in head.bars] == [
        "CrossEntropyLoss (original)",
        "original, tuned rate",
        "best known loss (GCELoss)",
        "metalearned",
    ]
    assert len({colour for *_, colour in head.bars}) == 4
    page = Page(write_report(tmp_path).read_text())
    assert page.missing == []
    assert "p, metalearned better than best known loss (GCELoss)" in words(page.sections["comparison"])
    assert "same number of trainings" in words(page.sections["comparison"])


def test_every_section_has_something_to_say(page):
    assert list(page.sections)[1:] == IDS
    assert page.missing == []
    assert all(len(words(page.sections[name])) > 60 for name in IDS)
    assert "seed: 0" in page.sections["setup"]
    assert "tglo-train experiment=digits_noisy 'loss.theta=[0,0,1]'" in page.sections["setup"]
    assert "Many gradients are zero." in page.sections["robustness"]
    assert "search.evaluator=scored" in page.sections["setup"]


def test_every_picture_has_words_beside_it(text, page):
    assert len(page.pictures) == 1 + 3 + 1 + 3 + 2 + 1
    assert all(len(words(told)) > 40 for told in page.pictures)
    assert text.count("<svg") == len(page.pictures) == text.count("<figcaption>") - text.count('class="code"')
    names = set(re.findall(r"var\(--plot-(\w+)\)", text))
    assert all(text.count(f"--plot-{name}: #") == 2 for name in names)


def test_it_is_small(folder):
    assert (folder / "report.html").stat().st_size < 500_000


def test_tables_have_captions_and_scopes(page):
    assert len(page.tables) > 8
    for table in page.tables:
        assert [tag for tag, _ in table].count("caption") == 1
        assert all(scope in ("col", "row") for tag, scope in table if tag == "th")


def test_the_page_loads_nothing(text):
    assert re.findall(r'(?:src|href)="(?!#|data:)', text) == []
    assert "<script" not in text
    assert "default-src 'none'" in text


def test_the_same_run_gives_the_same_report(folder, text, tmp_path):
    assert write_report(folder, tmp_path / "again.html").read_text() == text


def test_what_comes_from_data_is_escaped(tmp_path, undrawn):
    evil = "</script><img src=x onerror=alert(1)>"
    finished(tmp_path / "run", name=evil)
    text = write_report(tmp_path / "run").read_text()
    assert evil not in text
    assert "<img" not in text
    assert "a &lt;b&gt; &amp; c" in text


def test_an_interrupted_search(tmp_path):
    searched(tmp_path)
    interrupt(tmp_path, trainings=10)
    page = Page(write_report(tmp_path).read_text())
    assert "10 of 36 trainings" in words(page.sections["header"])
    assert page.missing == ["comparison", "search", "finalists", "curves", "attraction", "robustness"]
    assert len(page.pictures) == 4
    assert "best candidate so far" in page.sections["loss"]
    assert "continues from there" in page.sections["search"]


def test_an_interrupted_final_shows_what_there_is(tmp_path, undrawn):
    searched(tmp_path)
    interrupt(tmp_path, trainings=29)
    page = Page(write_report(tmp_path).read_text())
    assert "29 of 36" in page.sections["header"]
    assert "finalists" not in page.missing
    assert "The confirmation" not in page.sections["finalists"]


def test_a_journal_alone_tells_how_far_the_search_came(tmp_path, undrawn):
    result = searched(tmp_path)
    (tmp_path / "search.json").unlink()
    (tmp_path / "search.jsonl").rename(tmp_path / "mine.jsonl")
    path = write_report(tmp_path)
    assert path.name == "mine-report.html"
    page = Page(path.read_text())
    assert "36 of 36 trainings are done" in page.sections["header"]
    assert f"{result.best.mean:.4f}" in page.sections["finalists"]


def test_a_search_without_tglo_train(tmp_path):
    result = searched(tmp_path)
    page = Page(write_report(tmp_path).read_text())
    told = words(page.sections["header"])
    assert "Paired t-test, n = 3 seeds" in told
    assert "The confirming seeds are fresh" in told
    assert f"{result.original.mean:.4f}" in told
    assert "In place of CrossEntropyLoss" in page.sections["loss"]
    assert "The original is replaced if p is at most 0.05." in page.sections["finalists"]
    assert page.missing == ["comparison", "curves", "attraction", "robustness"]
    assert "generations" in page.sections["setup"]
    assert "feasible in the first generation" in page.sections["search"]


def test_a_search_of_presets(tmp_path):
    """One generation of several losses, the original among them."""
    result = searched(tmp_path, SearchSettings(finals=12))
    page = Page(write_report(tmp_path).read_text())
    labels = [picture for picture in page.pictures if "10 candidates in 1 generation" in picture]
    assert len(labels) == 1
    assert not any("Lines: the best of each generation" in picture for picture in page.pictures)
    assert [tag for tag in ("search", "finalists", "loss") if tag in page.missing] == []
    assert "It is doubled, for clear cases end after 4 seeds." in page.sections["finalists"]
    told = html_headline(read_run(tmp_path))
    assert (result.p_value < 0.001) == ("p\u00a0<\u00a00.001" in told.sure)
    assert "p\u00a0=\u00a0" + p_value(result.p_value) in " ".join(told.sentences)
    interrupt(tmp_path, trainings=1)
    head, page = html_headline(read_run(tmp_path)), Page(write_report(tmp_path).read_text())
    assert head.title == "The search is not finished: 1 of 37 trainings are done."
    # The original loss is no candidate for what is kept
    assert head.sentences == []
    assert "no candidate came to a finite result" in page.sections["loss"]


@pytest.mark.parametrize(
    ("name", "family", "told"),
    [("BCEWithLogitsLoss", "binary_focal", "the sigmoid h"), ("MSELoss", "huber", "the target y and the output h")],
)
def test_losses_of_other_targets(tmp_path, name, family, told, undrawn):
    criterion = Criterion.of(family, [1.0])
    candidate = Candidate(0, 0, criterion, 0.8, "ok", 1.0)
    best = Finalist.of(criterion, "finalist 1", [Evaluation(0.8), Evaluation(0.9)], candidate)
    own = Finalist.of(Criterion.original(), name, [Evaluation(0.5), Evaluation(0.5)])
    settings = {"num_classes": 2, "original_options": [{}]}
    result = SearchResult("metalearned", "val/acc", "max", best, own, (best,), (candidate,), settings=settings)
    page = Page(write_report(result, tmp_path / "a.html").read_text())
    assert told in page.sections["loss"]
    assert f"original = torch.nn.{name}()" in page.sections["loss"]
    assert "this one is for" in page.sections["why"]
    assert "classes" not in html_headline(RunFiles("search", search=result)).facts


def test_a_result_without_files_needs_a_place(tmp_path):
    result = searched(tmp_path / "run")
    page = Page(write_report(result, tmp_path / "result.html").read_text())
    assert "finalist 1" in page.sections["finalists"]
    with pytest.raises(ValueError, match="`output`"):
        write_report(result)


def test_nothing_could_be_trained(tmp_path):
    result = searched(tmp_path)
    values = result.to_dict()
    for candidate in values["history"]:
        candidate |= {"fitness": None, "status": "crashed", "error": "boom <b>"}
    values |= {"best": None, "finalists": [], "kept": "original", "p_value": None}
    page = Page(write_report(SearchResult.from_dict(values), tmp_path / "a.html").read_text())
    assert "No candidate could be trained" in page.sections["header"]
    assert "no candidate came to a finite result" in page.sections["loss"]
    assert "24 candidates in 4 generations, 24 failed" in page.sections["search"]


def test_diverged_seeds_are_no_average(tmp_path, undrawn):
    finished(tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    result["losses"]["metalearned"]["test"]["acc"]["values"][2] = None
    (tmp_path / "result.json").write_text(json.dumps(result))
    page = Page(write_report(tmp_path).read_text())
    assert "did not come to a finite result" in page.sections["header"]
    assert "not finite" in page.sections["comparison"]


@pytest.mark.parametrize(
    ("kept", "shift", "headline"),
    [
        ("original", 0.2, "CrossEntropyLoss stays"),
        ("metalearned", 0.001, "ties with CrossEntropyLoss"),
        ("metalearned", -0.3, "is worse than CrossEntropyLoss."),
    ],
)
def test_the_headline_claims_no_more_than_the_test(tmp_path, kept, shift, headline):
    finished(tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    base = result["losses"]["original"]["test"]["acc"]["values"]
    result["losses"]["metalearned"]["test"]["acc"]["values"] = [
        value + shift + noise for value, noise in zip(base, (0.01, -0.01, 0.01, -0.01, 0.0), strict=True)
    ]
    result["kept"] = kept
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert headline in html_headline(read_run(tmp_path)).title


def test_what_got_worse_stands_in_the_first_line(tmp_path):
    finished(tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    original, ours = (result["losses"][kind]["test"]["nll"] for kind in ("original", "metalearned"))
    ours["values"] = [value + 0.25 for value in original["values"]]
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert html_headline(read_run(tmp_path)).facts.endswith("worse than the original: test/nll (+0.2500)")


def test_the_original_loss_is_shown_as_it_is(tmp_path):
    values = searched(tmp_path).to_dict()
    values["settings"]["original_options"] = [{"label_smoothing": 0.1, "weight": [0.5, 1.0, 2.0]}]
    text = write_report(SearchResult.from_dict(values), tmp_path / "a.html").read_text()
    page, name = Page(text), "CrossEntropyLoss (smoothing 0.1, class weights 0.5, 1, 2)"
    assert f"beats {name}" in page.sections["header"]
    assert f"In place of {name}" in page.sections["loss"]
    code = "original = torch.nn.CrossEntropyLoss(label_smoothing=0.1, weight=torch.tensor([0.5, 1.0, 2.0]))"
    assert code in page.sections["loss"]
    assert any(f"{name} has" in told for told in page.pictures)
    assert "cross-entropy, smoothing 0.1" in text


def test_the_terminal_shows_the_same(folder, page, tmp_path, capsys):
    assert main([str(folder), "--text"]) == 0
    told = words(capsys.readouterr().out)
    for text in (*page.pictures, "The metalearned loss beats CrossEntropyLoss.", "paired by seed", "θ"):
        assert words(text) in told
    assert "Full configuration: in report.html" in told
    assert "[0,0,1]" in told
    searched(tmp_path)
    interrupt(tmp_path, trainings=10)
    (tmp_path / "curves.json").write_text("[")
    assert main([str(tmp_path), "--text"]) == 0
    told = words(capsys.readouterr().out)
    assert "10 of 36 trainings are done" in told
    assert "curves.json cannot be read" in told
    assert not (tmp_path / "report.html").exists()


def test_commands_find_the_configs_of_the_user(tmp_path, undrawn):
    finished(tmp_path)
    sources = [{"path": "here/conf", "provider": "main"}, {"path": "/my conf", "provider": "command-line"}]
    kept = {"runtime": {"config_sources": sources}, "overrides": {"hydra": ["hydra.mode=RUN"]}}
    (tmp_path / ".hydra" / "hydra.yaml").write_text(json.dumps({"hydra": kept}))
    page = Page(write_report(tmp_path).read_text())
    assert "tglo-train --config-dir '/my conf' experiment=digits_noisy" in page.sections["setup"]


def test_a_command_has_one_option_of_a_group(tmp_path, undrawn):
    finished(tmp_path)
    typed = ["experiment=digits_noisy", "callbacks=mine", "callbacks.mine.every=2", "seed=1"]
    (tmp_path / ".hydra" / "overrides.yaml").write_text(json.dumps(typed))
    shutil.rmtree(tmp_path / "seeds", ignore_errors=True)
    page = Page(write_report(tmp_path).read_text())
    assert "tglo-train experiment=digits_noisy seed=1 callbacks=attraction" in page.sections["attraction"]
    assert " ".join(typed) in page.sections["setup"]


def test_metrics_have_the_names_that_the_module_logs(tmp_path, undrawn):
    finished(tmp_path)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"logged": {"acc": "test_acc", "nll": "nll"}}))
    page = Page(write_report(tmp_path).read_text())
    assert " in test_acc: " in page.sections["header"]
    for name in ("test_acc, higher is better", "nll, lower is better"):
        assert name in page.sections["comparison"]
    assert "test/" not in page.sections["comparison"]


def test_a_known_loss_has_its_name(tmp_path, undrawn):
    values = searched(tmp_path).to_dict()
    values["best"]["criterion"] = Criterion.of("sce", [0.1, 1.0]).to_dict()
    page = Page(write_report(SearchResult.from_dict(values), tmp_path / "a.html").read_text())
    assert "This is sce, which the search kept." in page.sections["loss"]


def test_in_place_of_only_what_was_replaced(tmp_path, undrawn):
    result = SearchResult.from_dict(searched(tmp_path).to_dict() | {"kept": "original"})
    page = Page(write_report(result, tmp_path / "a.html").read_text())
    assert "CrossEntropyLoss stays: no metalearned loss was confirmed to beat it" in page.sections["header"]
    assert "In place of" not in page.sections["loss"]
    assert "To build this loss" in page.sections["loss"]


def test_a_tuned_rate_alone_is_a_result(tmp_path, undrawn):
    values = searched(tmp_path).to_dict()
    values["best"]["criterion"] = Criterion.original(0.3).to_dict()
    page = Page(write_report(SearchResult.from_dict(values), tmp_path / "a.html").read_text())
    assert "CrossEntropyLoss as it is, at 0.3 times its learning rate" in page.sections["loss"]


FILES = ["result.json", "search.json", "curves.json", "fit.json", "attack/robustness.json"]
NPZ = "seeds/original-0/attraction.npz"
WRONG = [None, "text", -1, 10**400, 0.5, True, [], {}, [[]], {"a": 1}]


def mutated(value, draws):
    """A JSON value with something somewhere in it replaced, or left out."""
    if isinstance(value, dict | list) and value and draws.random() < 0.85:
        twin = value.copy()
        key = draws.choice([*twin] if isinstance(twin, dict) else range(len(twin)))
        if draws.random() < 0.1:
            del twin[key]
        else:
            twin[key] = mutated(twin[key], draws)
        return twin
    return draws.choice(WRONG)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / "run"
    finished(path, baselines=True)
    curves = json.loads((path / "curves.json").read_text())["original"][0]
    Fit("original", curves).save(path / "fit.json")
    return path


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_other_values_is_one_line_or_shown(whole, tmp_path, name, undrawn):
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / name
    if name == "fit.json":
        (tmp_path / "run" / "curves.json").unlink()
    values, draws = json.loads(path.read_text()), random.Random(name)
    told = 0
    for _ in range(25):
        path.write_text(json.dumps(mutated(values, draws)))
        page = Page(write_report(tmp_path / "run").read_text())
        told += f"{path.name} cannot be read" in page.sections["header"]
        assert list(page.sections)[1:] == IDS
    assert told > 5


@pytest.mark.parametrize("name", [*FILES, NPZ])
def test_a_damaged_file_is_one_line_in_a_report_of_the_rest(whole, tmp_path, name, undrawn):
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / name
    if name == "fit.json":
        (tmp_path / "run" / "curves.json").unlink()
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"[" * 100_000, b"", bytes(range(256))):
        path.write_bytes(damaged)
        files = read_run(tmp_path / "run")
        assert [each.startswith(f"{path.name} cannot be read (") for each in files.problems] == [True]
    text = write_report(tmp_path / "run").read_text()
    assert text.count('role="alert"') == 1
    assert [*Page(text).sections][1:] == IDS


def test_a_report_is_written_whole_or_not_at_all(tmp_path, monkeypatch, undrawn):
    searched(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (tmp_path / "report.html").symlink_to(elsewhere)
    write_report(tmp_path)
    assert elsewhere.read_text() == "mine"
    before = (tmp_path / "report.html").read_text()
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_text() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_attacks_and_measurements_from_elsewhere(tmp_path):
    searched(tmp_path / "run")
    record(tmp_path / "logs", None)
    attacked(tmp_path / "other")
    out = tmp_path / "out.html"
    given = [
        "--attack",
        f"mine & yours={tmp_path / 'other'}",
        "--attraction",
        str(tmp_path / "logs" / "attraction.npz"),
    ]
    assert main([str(tmp_path / "run"), "--output", str(out), *given]) == 0
    page = Page(out.read_text())
    assert "Accuracy under attack: mine & yours" in page.sections["robustness"]
    assert "Attraction, attraction" in page.sections["attraction"]
    record(tmp_path / "run" / "logs", None)  # of somebody else's run, for all that is known
    assert "Attraction, this training" not in write_report(tmp_path / "run").read_text()
    record(tmp_path / "run", None)
    assert "Attraction, this training" in write_report(tmp_path / "run").read_text()


def test_what_cannot_be_reported_is_refused(tmp_path, capsys, undrawn):
    for arguments, message in (
        ([str(tmp_path / "none")], "no such file or directory"),
        ([str(tmp_path)], "holds no run"),
        ([str(tmp_path), "--num-classes", "1"], "`num_classes` must be at least 2"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    for name in ("a", "b"):
        searched(tmp_path)
        (tmp_path / "search.jsonl").rename(tmp_path / f"{name}.jsonl")
        (tmp_path / "search.json").unlink()
    assert main([str(tmp_path)]) == 2
    assert "several searches; give the journal of one of them: a.jsonl, b.jsonl" in capsys.readouterr().err
    assert main([str(tmp_path / "a.jsonl")]) == 0
    for option in ("--attack", "--attraction"):
        assert main([str(tmp_path / "a.jsonl"), option, str(tmp_path / "nowhere")]) == 2


def test_without_matplotlib_the_command_says_what_to_install_and_a_run_goes_on(tmp_path, monkeypatch, caplog, capsys):
    searched(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([str(tmp_path)]) == 2
    assert "pip install 'tglo-lightning[plots]'" in capsys.readouterr().err
    with caplog.at_level("INFO"):
        assert report_quietly(tmp_path) is None
    assert "tglo-lightning[plots]" in caplog.text


def test_an_automatic_report_never_fails(tmp_path, caplog):
    assert report_quietly(tmp_path / "nowhere") is None
    assert "No report.html" in caplog.text
