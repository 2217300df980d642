"""`tglo-report`: what a run found, in one HTML file to send to a colleague."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tglo_lightning.cli.shell import console, end
from tglo_lightning.reporting import write_report
from tglo_lightning.reporting.html import print_report
from tglo_lightning.untrusted import regular_target


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report that the command line asks for and print its path; see :func:`tglo_lightning.cli.shell.end`."""
    return end("tglo-report", _report, arguments)


def _report(arguments: list[str]) -> None:
    options = _parser().parse_args(arguments)
    given: dict[str, Any] = {"num_classes": options.num_classes}
    given |= {name: dict(map(_named, getattr(options, name))) for name in ("attacks", "attraction")}
    if options.text:
        return print_report(options.run, console(120), **given)
    if options.output is None:
        for path in (options.run if options.run.is_dir() else options.run.parent).glob("*report.html"):
            regular_target(path)
    print(write_report(options.run, options.output, **given))


def _named(entry: str) -> tuple[str, str]:
    """`NAME=PATH`, or a path whose last part is the name."""
    name, separator, path = entry.partition("=")
    return (name, path) if separator else (Path(entry).resolve().stem, entry)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tglo-report",
        description="Write the report of a run: verdict, loss, explanation, search, comparison, configuration, in one\n"
        "HTML file that opens without a network. A run that is not finished is reported as far as it came.",
        epilog="""examples:
  tglo-report outputs/2026-01-31/12-00-00
  tglo-report RUN_DIR --text
  tglo-report runs/search.jsonl --output search.html
  tglo-report RUN_DIR --attack cross-entropy=outputs/A --attack metalearned=outputs/B""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    run = "directory of a run of tglo-train, or of a search with a journal; or the journal itself"
    attack = "a report of tglo-attack, or its directory, again for more; those below RUN_DIR are found"
    attraction = "an .npz file of AttractionMonitor, again for more; those below RUN_DIR are found"
    add("run", type=Path, metavar="RUN_DIR", help=run)
    add("--output", type=Path, metavar="FILE", help="file to write (default: report.html in RUN_DIR)")
    add("--text", action="store_true", help="print the report in the terminal instead")
    add("--attack", dest="attacks", action="append", default=[], metavar="[NAME=]PATH", help=attack)
    add("--attraction", action="append", default=[], metavar="[NAME=]PATH", help=attraction)
    add("--num-classes", type=int, metavar="N", help="number of classes, if no file of the run has it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
