"""Formulas as MathML, which every browser draws without help."""

from __future__ import annotations

import re
from html import escape

from markupsafe import Markup

__all__ = ["mathml"]

TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?(?:e[+-]?\d+)?|inf|nan)|([A-Za-z]+)|([-+^/()]))")
TIMES = '<mspace width="0.17em"/>'


def mathml(formula: str) -> Markup:
    """A formula such as ``"-1.5 h^2 + 2 y (h - 0.5)"``, as the losses of this package write it, in MathML.

    Each term of the sum is a ``<math>`` of its own, so that a long formula breaks into lines. What follows a comma
    stays text, as in ``"0.2 y log(h), labels smoothed by 0.8"``. Anything else comes back
    as escaped text.
    """
    sum_, comma, rest = formula.partition(", ")
    try:
        terms = _Parser(sum_).terms()
    except ValueError:
        return Markup(f"<code>{escape(formula)}</code>")
    drawn = " ".join(f'<math aria-label="{escape(text)}"><mrow>{body}</mrow></math>' for text, body in terms)
    return Markup(drawn + escape(f"{comma}{rest}"))


class _Parser:
    """sum = [sign] product {sign product}; product = power {[/] power}; power = atom [^ atom]."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text.rstrip()):
            match = TOKEN.match(text, at)
            if match is None:
                raise ValueError(text)
            kind = ("number", "name", "sign")[(match.lastindex or 1) - 1]
            self.tokens.append((kind, match[match.lastindex or 1]))
            at = match.end()
        self.at = 0

    def terms(self) -> list[tuple[str, str]]:
        """The terms of the sum, each as text and as MathML with its sign."""
        found: list[tuple[str, str]] = []
        while self.at < len(self.tokens):
            start = self.at
            sign = self._accept("+", "-")
            if found and not sign:
                raise ValueError("a sign is missing")
            form = "infix" if found else "prefix"
            space = ' lspace="0" rspace="0.22em"' if found else ' lspace="0" rspace="0.06em"'
            body = f'<mo form="{form}"{space}>{"−" if sign == "-" else "+"}</mo>' if sign else ""
            body += self._product()
            found.append((" ".join(text for _, text in self.tokens[start : self.at]), body))
        if not found:
            raise ValueError("empty")
        return found

    def _product(self) -> str:
        body = self._power()
        while self.at < len(self.tokens) and self._peek() not in ("+", "-", ")"):
            if self._accept("/"):
                body = f"<mfrac><mrow>{body}</mrow><mrow>{self._power()}</mrow></mfrac>"
            else:
                body += TIMES + self._power()
        return body

    def _power(self) -> str:
        base = self._atom()
        return f"<msup><mrow>{base}</mrow><mrow>{self._atom()}</mrow></msup>" if self._accept("^") else base

    def _atom(self) -> str:
        if self.at >= len(self.tokens):
            raise ValueError("ends too early")
        kind, text = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            return _number(text)
        if kind == "name":
            if self._peek() == "(" and len(text) > 1:
                return f'<mi mathvariant="normal">{escape(text)}</mi><mo>&#x2061;</mo>{self._atom()}'
            return f'<mi mathvariant="normal" class="v">{escape(text)}</mi>'
        if text != "(":
            raise ValueError(f"unexpected {text}")
        inner = self._accept("-")
        body = f'<mo form="prefix">−</mo>{self._product()}' if inner else self._product()
        while sign := self._accept("+", "-"):
            body += f"<mo>{'−' if sign == '-' else '+'}</mo>{self._product()}"
        if not self._accept(")"):
            raise ValueError("a bracket is open")
        return f"<mrow><mo>(</mo>{body}<mo>)</mo></mrow>"

    def _peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def _accept(self, *texts: str) -> str:
        text = self._peek()
        if text not in texts or not text:
            return ""
        self.at += 1
        return text


def _number(text: str) -> str:
    mantissa, e, exponent = text.partition("e")
    if not e:
        return f"<mn>{'∞' if text == 'inf' else escape(text)}</mn>"
    power = int(exponent)
    drawn = f"<mo>−</mo><mn>{-power}</mn>" if power < 0 else f"<mn>{power}</mn>"
    return f"<mn>{mantissa}</mn><mo>×</mo><msup><mn>10</mn><mrow>{drawn}</mrow></msup>"
