"""The sections of the report: what each shows, and what it says if there is nothing to show."""

from __future__ import annotations

from collections.abc import Callable

from tglo_lightning.reporting.html import snippets
from tglo_lightning.reporting.html.blocks import Code, Details, Missing, Section, Table, Text
from tglo_lightning.reporting.html.files import RunFiles
from tglo_lightning.reporting.html.sections.loss import comparison, loss, theory
from tglo_lightning.reporting.html.sections.search import finalists, search
from tglo_lightning.reporting.html.sections.training import attraction, curves, robustness


def sections(files: RunFiles) -> list[Section]:
    """All sections, in the order of the page."""
    builders = (comparison, loss, theory, search, finalists, curves, attraction, robustness, setup)
    return [_shown(build, files) for build in builders]


def _shown(build: Callable[[RunFiles], Section], files: RunFiles) -> Section:
    """A section; a line in its place if the values in the files are such that it cannot be made."""
    try:
        return build(files)
    except ImportError:
        raise
    except Exception as error:  # the types of the values were checked, not all that they may be
        name = build.__name__
        words = f"This part cannot be shown: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return Section(name, name.capitalize()).add(Missing(words))


def setup(files: RunFiles) -> Section:
    """All of the configuration, versions, and what to type to repeat the run."""
    section = Section("setup", "Configuration and versions")
    typed, search = snippets.command(files), files.search
    evaluator = search.settings.get("evaluator") if search is not None else None
    if typed:
        section.add(Code("To repeat this run", typed))
        if evaluator and not any(o.startswith("search.evaluator=") for o in files.overrides or []):
            words = f"The search was scored by the “{evaluator}” evaluator; to repeat it bit for bit add"
            section.add(Text(f"{words} search.evaluator={evaluator}, and install the versions below."))
    elif search is None:
        section.add(Missing("The command was not recorded: there is no .hydra/overrides.yaml in this directory."))
    versions = (files.result or {}).get("versions") or files.header.get("versions") or {}
    if versions:
        section.add(Table("Versions", ["package", "version"], [[k, str(v)] for k, v in versions.items()]))
    else:
        section.add(Missing("The versions of the packages were not recorded: there is no result.json or journal."))
    if search is not None and search.settings:
        told: dict[str, object] = {k: files.header[k] for k in ("loss", "init", "budget") if k in files.header}
        told |= {"monitor": search.monitor, "mode": search.mode, **search.settings}
        rows = [[name, "none" if value is None else str(value)] for name, value in told.items()]
        settings = Table("Settings of the search", ["setting", "value"], rows)
        section.add(Details("Settings of the search", [settings]) if typed else settings)
    if files.config:
        section.add(Details("Full configuration", [Code("config.yaml", files.config.rstrip())]))
    elif files.command:
        section.add(Missing("The configuration was not recorded: there is no .hydra/config.yaml here."))
    return section
