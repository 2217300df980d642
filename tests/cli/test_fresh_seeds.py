import json

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir

from tglo_lightning.cli import fresh_seeds as module
from tglo_lightning.cli.commands import CONFIG_DIR
from tglo_lightning.cli.fresh_seeds import Scores, fresh_seeds, paired_tests, train_and_test
from tglo_lightning.cli.recipe import Recipe
from tglo_lightning.losses import NCERCELoss


def test_fresh_seeds_differ_and_repeat():
    seeds = fresh_seeds(0, 5)
    assert seeds == fresh_seeds(0, 5)
    assert len({*seeds, *fresh_seeds(1, 5)}) == 10


def test_better_is_higher_accuracy_and_lower_nll():
    original = Scores(test={"acc": [0.6, 0.62, 0.64], "nll": [1.0, 1.1, 1.2]})
    better = Scores(test={"acc": [0.8, 0.83, 0.84], "nll": [0.5, 0.65, 0.7]})
    for first, second, close in ((original, better, 0.0), (better, original, 1.0)):
        tests = paired_tests({"original": first, "metalearned": second}, "original")
        for metric in ("acc", "nll"):
            assert tests[metric]["p_one_sided"] == pytest.approx(close, abs=0.01)
            assert tests[metric]["p_two_sided"] < 0.02


def test_no_test_without_a_metalearned_loss():
    scores = {"original": Scores(test={"acc": [0.5, 0.6]})}
    assert paired_tests(scores, "original") == {}
    assert paired_tests({"metalearned": scores["original"]}, "metalearned") == {}


def test_curves_are_recorded_and_change_nothing(tmp_path, monkeypatch):
    overrides = ["task.train_size=100", "task.val_size=60", "trainer.max_epochs=3", "search=none", "logger=none"]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("train", overrides=[f"paths.output_dir={tmp_path}", *overrides])
    found = []
    for recorder in (module.CurveRecorder, None):
        if recorder is None:

            class Nothing(pl.Callback):
                curves = None

            monkeypatch.setattr(module, "CurveRecorder", Nothing)
        recipe = Recipe(cfg)
        scores = train_and_test(recipe, {"original": recipe.module}, [1, 2], progress=False)["original"]
        found.append((scores.monitor, scores.test, torch.get_rng_state().tolist()))
        if recorder is not None:
            curves = scores.curves
    assert found[0] == found[1]
    assert len(curves) == 2
    for seed, monitored in zip(curves, found[0][0], strict=True):
        assert {"train/loss", "val/acc", "val/nll"} <= set(seed)
        assert all(len(values) == 3 for values in seed.values())
        assert seed["val/acc"][-1] == pytest.approx(monitored, rel=1e-5)
        json.dumps(seed, allow_nan=False)


def test_the_best_epoch_is_tested_if_that_counts(tmp_path):
    overrides = ["task.train_size=100", "task.val_size=60", "trainer.max_epochs=5", "search=none", "logger=none"]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("train", overrides=[f"paths.output_dir={tmp_path}", "evaluation.score=best", *overrides])
    recipe = Recipe(cfg)
    scores = train_and_test(recipe, {"original": recipe.module}, [1], progress=False)["original"]
    assert scores.monitor == pytest.approx([max(scores.curves[0]["val/acc"])])
    assert not list(tmp_path.rglob("*.ckpt"))


def test_attraction_is_measured_where_the_loss_lets_it(tmp_path):
    overrides = ["task.train_size=100", "task.val_size=60", "trainer.max_epochs=1", "logger=none"]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("train", overrides=[f"paths.output_dir={tmp_path}", "callbacks=attraction", *overrides])
    recipe = Recipe(cfg)

    def known():
        built = recipe.module()
        built.criterion = NCERCELoss()
        return built

    with pytest.warns(UserWarning, match="cannot tell the attraction of Classifier.criterion, a NCERCELoss"):
        scores = train_and_test(recipe, {"original": recipe.module, "known": known}, [1], progress=False)
    assert [path.parent.name for path in tmp_path.rglob("attraction.npz")] == ["original-0"]
    assert len(scores["known"].monitor) == 1
