"""The recipe that makes priors writes what the package reads."""

import json
from pathlib import Path

import pytest

from tglo_lightning.losses.shape import from_minimal, from_shape, mean_pull


@pytest.mark.slow
def test_a_small_run_writes_a_prior(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from recipes.prior.run import main

    output = tmp_path / "own.json"
    sizes = ["--generations", "1", "--population", "4", "--tasks", "iris, 0%;quantiles 4;wine"]
    main(["--small", *sizes, "--jobs", "1", "--name", "own", "--output", str(output)])
    made = json.loads(output.read_text())
    assert (made["name"], made["order"], len(made["spread"])) == ("own", 3, 3)
    c = from_shape(1.0, made["centre"]["t"], 10)
    assert float(mean_pull(c, 10)) > 0.99
    assert from_minimal(c).isfinite().all()
    told = made["provenance"]
    assert [len(told[part]["tasks"]) for part in ("source", "real_data")] == [2, 1]
    groups = {"without blobs and iris", "without classification and quantiles"}
    # What is reported on iris was found without its group
    assert set(told["centres"]) == {"all", *groups, "noisy", "cleaner", "order 4"}
    known = {"smoothing", "gce", "sce", "nce_rce", "twin", "shipped"}
    variants = {"held out", "all", "noisy", "cleaner", "order 4", "two, by validation", "two, by true noise"}
    for row in told["source"]["tasks"]:
        assert set(row["gain"]) == known | variants
        assert all(-1 <= value <= 1 for value in row["gain"].values())
    assert "Real data" in capsys.readouterr().out
