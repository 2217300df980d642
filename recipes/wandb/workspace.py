"""Save a workspace in a W&B project: the sections of ``workspace.yaml``.

    pip install 'tglo-lightning[workspaces]'
    wandb login
    python recipes/wandb/workspace.py ENTITY PROJECT

``--show`` prints the sections instead, without a login.
"""

import argparse
from pathlib import Path

import yaml
from wandb_workspaces.reports.v2 import LinePlot, MediaBrowser
from wandb_workspaces.workspaces import Section, Workspace

SECTIONS = Path(__file__).with_name("workspace.yaml")


def workspace(entity: str, project: str, name: str = "tglo-lightning") -> Workspace:
    """Return the workspace, not saved yet."""
    sections = []
    for title, section in yaml.safe_load(SECTIONS.read_text()).items():
        panels = [LinePlot(title=label, x=section["axis"], y=keys) for label, keys in section["plots"].items()]
        panels += [MediaBrowser(title="Pictures", media_keys=section["media"])] if "media" in section else []
        sections.append(Section(name=title, panels=panels, is_open=True))
    return Workspace(entity=entity, project=project, name=name, sections=sections)


def main() -> None:
    """Save the workspace and print its address."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entity", help="user or team that owns the project")
    parser.add_argument("project", nargs="?", default="tglo-lightning")
    parser.add_argument("--name", default="tglo-lightning", help="of the saved view")
    parser.add_argument("--show", action="store_true", help="print the sections and stop")
    arguments = parser.parse_args()
    built = workspace(arguments.entity, arguments.project, arguments.name)
    if arguments.show:
        for section in built.sections:
            print(f"{section.name}: {', '.join(str(panel.title) for panel in section.panels)}")
    else:
        print(built.save().url)


if __name__ == "__main__":
    main()
