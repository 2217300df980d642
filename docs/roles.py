"""Docstrings speak reStructuredText (roles, math, doctests), the site Markdown: translate on the way."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, NameResolutionError, Object

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc|obj):`(?:([^<`]+?)\s*<)?(~?)([\w.]+)>?`")
MATH = re.compile(r":math:`([^`]+)`")
DISPLAY = re.compile(r"^( *)\.\. math:: *(.*\n?(?:\1 +\S.*\n?)*)", re.MULTILINE)
DOCTEST = re.compile(r"^( *)>>> (?:.+\n?)+", re.MULTILINE)


class Roles(Extension):
    """Rewrites the docstring of every object that is read."""

    def on_instance(self, *, obj: Object, **kwargs: Any) -> None:
        """Translate the docstring of ``obj``; names of this package become links."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value, obj)


def markdown(text: str, obj: Object) -> str:
    """``text`` with its roles, math and doctests as Markdown."""

    def link(match: re.Match[str]) -> str:
        title, short, target = match.groups()
        shown = title or (target.rpartition(".")[2] if short else target)
        path = target
        if "." not in target:
            try:
                path = obj.resolve(target)
            except NameResolutionError:
                path = f"{obj.path}.{target}"
        # Optional: what has no page of its own stays plain code
        return f'<autoref optional identifier="{path}"><code>{shown}</code></autoref>'

    text = ROLE.sub(link, text)
    text = MATH.sub(lambda match: f"${' '.join(match[1].split())}$", text)
    text = DISPLAY.sub(lambda match: f"\n{match[1]}$${' '.join(match[2].split())}$$\n\n", text)
    return DOCTEST.sub(lambda match: f"{match[1]}```pycon\n{match[0].rstrip()}\n{match[1]}```\n", text)
