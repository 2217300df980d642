"""`tglo-compare`: the losses of any number of runs in one table, with tests and a strip plot."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tglo_lightning.cli.shell import console, end, print_picture
from tglo_lightning.reporting import pictures
from tglo_lightning.reporting.comparison import UNITS, Comparison, compare
from tglo_lightning.reporting.tables import comparison_legend, comparison_table
from tglo_lightning.untrusted import regular_target

FILE = "comparison.json"
PICTURE = "comparison.png"
EXAMPLES = """Examples
  tglo-compare multirun/DAY/TIME                        all jobs of a sweep
  tglo-compare RUN1 RUN2 --reference "cross-entropy"
  tglo-compare multirun/DAY/TIME --metric all --markdown
  tglo-compare multirun --pool seed --unit run          one value per search, over several search seeds
"""
WIDTH = 140  # of a table in a file


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the runs that the command line names; see :func:`tglo_lightning.cli.shell.end`."""
    return end("tglo-compare", _compare, arguments)


def _compare(arguments: list[str]) -> None:
    options = _parser().parse_args(arguments)
    comparison = compare(options.runs, reference=options.reference, pool=options.pool, unit=options.unit)
    folders = [(path if path.is_dir() else path.parent).resolve() for path in options.runs]
    folder = options.output or Path(os.path.commonpath(folders))
    report(comparison, folder, options.metric, markdown=options.markdown)


def report(
    comparison: Comparison, folder: Path, metrics: Sequence[str] | None = None, *, markdown: bool = False
) -> None:
    """Write `comparison.json` and `comparison.png` into a folder, and print the tables.

    Args:
        comparison: what to report.
        folder: where to write; made if it is not there.
        metrics: to print, and the first to draw; by default the first of the comparison, `["all"]` for all.
        markdown: print tables in Markdown.

    Raises:
        ValueError: no such metric, or a file to write is a symbolic link.
    """
    shown = comparison.metrics[:1] if not metrics else comparison.metrics if "all" in metrics else list(metrics)
    unknown = [metric for metric in shown if metric not in comparison.metrics]
    if unknown:
        raise ValueError(f"--metric must be all or one of {', '.join(comparison.metrics)}, got {unknown[0]!r}")
    folder.mkdir(parents=True, exist_ok=True)
    path, picture = (regular_target(folder / name) for name in (FILE, PICTURE))
    out = console(WIDTH)
    for metric in shown:
        for condition in comparison.conditions:
            if comparison.select(condition, metric):
                out.print(comparison_table(comparison, condition, metric, markdown=markdown))
        out.print(comparison_legend(comparison, metric))
    for note in comparison.notes:
        out.print(f"Note: {note}.")
    path.write_text(json.dumps(comparison.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    out.print(str(path))
    print_picture(lambda: pictures.comparison(comparison, shown[0]), picture)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tglo-compare",
        description="Compare the losses of runs of tglo-train: mean, deviation and paired t-test\n"
        "against a reference, corrected for the number of comparisons, and a strip plot.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUNS", help="run or multirun directories, or result.json files")
    add("--reference", metavar="LOSS", help="loss to compare with, as named in the table (default: cross-entropy)")
    metric = "test metric to print, again for more, all for all; the first is drawn (default: the first there is)"
    add("--metric", action="append", metavar="NAME", help=metric)
    pool = "a key of the config, such as optimizer.lr, whose values share a table"
    add("--pool", action="append", default=[], metavar="KEY", help=pool)
    unit = "what one value is: a training; or a run, the mean of its trainings, which pools the losses that several "
    add("--unit", choices=UNITS, default=UNITS[0], help=unit + "searches found (default: %(default)s)")
    output = f"where to write {FILE} and {PICTURE} (default: the folder that holds all RUNS)"
    add("--output", type=Path, metavar="FOLDER", help=output)
    add("--markdown", action="store_true", help="print tables in Markdown")
    return parser


if __name__ == "__main__":
    sys.exit(main())
