"""The recipe that makes priors writes what the package reads."""

import json
from pathlib import Path

from tglo_lightning.losses.shape import from_minimal, from_shape, mean_pull


def test_a_small_run_writes_a_prior(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from recipes.prior.run import main

    output = tmp_path / "own.json"
    sizes = ["--generations", "1", "--population", "4", "--tasks", "iris, 0%;blobs 3;wine"]
    main(["--small", *sizes, "--jobs", "1", "--name", "own", "--output", str(output)])
    made = json.loads(output.read_text())
    assert (made["name"], made["order"], len(made["spread"])) == ("own", 3, 3)
    c = from_shape(1.0, made["centre"]["t"], 10)
    assert float(mean_pull(c, 10)) > 0.99
    assert from_minimal(c).isfinite().all()
    told = made["provenance"]
    assert [len(part["tasks"]) for part in (told["held_out"], told["real_data"])] == [2, 1]
    # Held out by family: what is reported on iris was found on blobs alone
    assert set(told["centres"]) == {"iris", "blobs", "all"}
    assert told["centres"]["iris"] != told["centres"]["all"]
    for row in told["held_out"]["tasks"]:
        assert set(row["gain"]) == {"smoothing", "gce", "sce", "nce_rce", "twin", "shipped", "found"}
        assert all(-1 <= value <= 1 for value in row["gain"].values())
    assert "Families held out" in capsys.readouterr().out
