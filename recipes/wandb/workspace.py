"""Save a workspace in a W&B project: sections for the search, the attraction, training and validation.

    pip install 'tglo-lightning[workspaces]'
    wandb login
    python recipes/wandb/workspace.py ENTITY PROJECT

``--show`` prints the sections instead, without a login.
"""

import argparse

from tglo_lightning.reporting.dashboard import workspace


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
