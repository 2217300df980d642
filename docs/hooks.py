"""What the site takes from elsewhere in the repository: recipes, changelog, the configs; and formulas as MathML.

Pages link to ``../recipes/...`` and ``../CONTRIBUTING.md`` as these lie in the repository, so that they can be read
there, too.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "constraints.txt", "constraints-oldest.txt")
SUFFIXES = (".md", ".png", ".json", ".py", ".ipynb", ".yaml")
OUTWARD = re.compile(r"\]\((?:\.\./(?=recipes/|conf/|CHANGELOG|CONTRIBUTING|constraints)|docs/)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
GROUPS = re.compile(r"(<!-- groups -->\n).*(<!-- /groups -->)", re.DOTALL)
SHOWN = re.compile(r"<!-- show (\S+) -->")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside of ``docs``."""
    recipes = sorted(path for path in (ROOT / "recipes").rglob("*") if path.suffix in SUFFIXES)
    shown = [ROOT / name for name in SHOWN.findall((ROOT / "docs" / "configs.md").read_text(encoding="utf-8"))]
    for path in [*(ROOT / name for name in PAGES), *recipes, *shown]:
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links across the border of ``docs`` point into the site; put in the configs."""
    return SHOWN.sub(shown, with_groups(OUTWARD.sub("](", markdown)))


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Formulas as MathML, which browsers show without a script."""

    def mathml(match: re.Match[str]) -> str:
        display = "block" if match[2] == "[" else "inline"
        return convert(html.unescape(match[3]).strip(), display=display)

    return FORMULA.sub(mathml, content)


def with_groups(markdown: str) -> str:
    """A page with the tables of the configs as they are, between their marks."""
    return GROUPS.sub(lambda marks: f"{marks[1]}\n{groups()}\n{marks[2]}", markdown)


def shown(mark: re.Match[str]) -> str:
    """A file, in place of the mark that names it."""
    return f"```yaml\n{(ROOT / mark[1]).read_text(encoding='utf-8').rstrip()}\n```"


def groups() -> str:
    """A table for every group of ``conf/``: its options, each with the comment that its file begins with."""
    lines = []
    for folder in sorted(path for path in (ROOT / "conf").rglob("*") if path.is_dir()):
        options = sorted(folder.glob("*.yaml"))
        lines += [f"### `{folder.relative_to(ROOT / 'conf').as_posix()}`", "", "| option | |", "| --- | --- |"]
        lines += [f"| `{path.stem}` | {comment(path)} |" for path in options]
        lines.append("")
    return "\n".join(lines)


def comment(path: Path) -> str:
    """The comment at the top of a config; without one, what it builds or sets."""
    said, lines = [], path.read_text(encoding="utf-8").splitlines()
    for line in lines:
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            said.append(line.removeprefix("#").strip())
    if said:
        return " ".join(said)
    plain = [line for line in lines if not line.startswith("#")]
    target = next((line.split()[1] for line in lines if line.startswith("_target_:")), "")
    return f"`{target.rpartition('.')[2]}`" if target else ", ".join(f"`{line.strip()}`" for line in plain[-2:])
