"""What commands have in common in a terminal."""

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

# Whatever a wrong argument, a damaged file or a missing library makes of a command
ERRORS = (ValueError, TypeError, OverflowError, OSError, ImportError)


def end_with_reader() -> None:
    """Let the process end quietly when the reader of its output has gone, as in `tglo-train --help | head`."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def end(program: str, work: Callable[[list[str]], None], arguments: Sequence[str] | None) -> int:
    """Run a command; return 0, or 2 after one line on stderr that says what is wrong.

    Args:
        program: name of the command.
        work: called with the arguments.
        arguments: None for those of this process, which then ends when the reader of its output has gone.
    """
    if arguments is None:
        end_with_reader()
    try:
        work(sys.argv[1:] if arguments is None else list(arguments))
    except ERRORS as error:
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def console(width: int) -> Console:
    """Return where to print tables: the terminal, or a file with this many columns."""
    shown = Console(highlight=False, soft_wrap=True)
    if not shown.is_terminal:
        shown.width = width
    return shown


def print_picture(draw: Callable[[], Any], path: Path) -> None:
    """Save a matplotlib figure and print its path, or what to install for it."""
    from tglo_lightning.reporting import pictures  # takes longer than what `--help` needs

    try:
        print(pictures.save(draw(), path))
    except ImportError as error:
        print(f"No picture. {error}")
