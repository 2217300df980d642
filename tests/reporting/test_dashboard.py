import sys

import pytest

from tglo_lightning.reporting.dashboard import workspace


def test_the_workspace_groups_the_panels(monkeypatch):
    pytest.importorskip("wandb_workspaces")
    built = workspace("someone", "digits")
    assert [section.name for section in built.sections] == ["Search", "Attraction", "Training", "Validation"]
    prefixes = {"Search": "search/", "Attraction": "attraction/", "Training": "train/", "Validation": "val/"}
    for section in built.sections:
        assert section.is_open
        keys = [key for panel in section.panels for key in getattr(panel, "y", None) or panel.media_keys]
        assert keys
        assert all(str(key).startswith(prefixes[section.name]) for key in keys)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(ImportError, match=r"pip install 'tglo-lightning\[workspaces\]'"):
        workspace("someone", "digits")
