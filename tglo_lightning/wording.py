"""Counts in sentences."""

SIBILANTS = ("s", "x", "ch", "sh")


def counted(count: int, noun: str) -> str:
    """A number and what it counts.

    >>> counted(1, "candidate"), counted(0, "batch")
    ('1 candidate', '0 batches')
    """
    return f"{count:,} {plural(count, noun)}"


def plural(count: int, noun: str) -> str:
    """``noun`` for one, and its plural for any other number.

    >>> plural(1, "loss"), plural(2, "loss")
    ('loss', 'losses')
    """
    return noun if count == 1 else noun + ("es" if noun.endswith(SIBILANTS) and noun != "epoch" else "s")
