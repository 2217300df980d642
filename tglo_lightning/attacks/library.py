"""The attack libraries, imported when an attack first runs."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

__all__ = ["foolbox", "pyautoattack"]

INSTALL = "{} needs {}: pip install 'tglo-lightning[{}]'"


def foolbox(name: str = "foolbox", attack: str = "This attack") -> Any:
    """A module of foolbox.

    Raises:
        ImportError: foolbox is not installed; the message says what to type.
    """
    # foolbox imports GitPython, which fails where there is no git unless told to be quiet
    before = os.environ.get("GIT_PYTHON_REFRESH")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(INSTALL.format(attack, "foolbox", "attacks")) from error
    finally:
        if before is None:
            del os.environ["GIT_PYTHON_REFRESH"]


def pyautoattack(name: str = "pyautoattack", attack: str = "This attack") -> Any:
    """A module of pyautoattack.

    Raises:
        ImportError: pyautoattack is not installed; the message says what to type.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(INSTALL.format(attack, "pyautoattack", "autoattack")) from error
