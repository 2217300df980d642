"""The attack libraries, imported when an attack first runs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tglo_lightning.evaluation.isolation import environment

__all__ = ["foolbox", "pyautoattack"]


def foolbox(name: str = "foolbox", attack: str = "This attack") -> Any:
    """A module of foolbox.

    Raises:
        ImportError: foolbox is not installed; the message says what to type.
    """
    # foolbox imports GitPython, which fails where there is no git unless told to be quiet
    with environment(GIT_PYTHON_REFRESH="quiet"):
        return _imported(name, attack, "foolbox", "attacks")


def pyautoattack(name: str = "pyautoattack", attack: str = "This attack") -> Any:
    """A module of pyautoattack.

    Raises:
        ImportError: pyautoattack is not installed; the message says what to type.
    """
    return _imported(name, attack, "pyautoattack", "autoattack")


def _imported(name: str, attack: str, library: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"{attack} needs {library}: pip install 'tglo-lightning[{extra}]'") from error
