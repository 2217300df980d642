"""Dataclasses as plain values and back, and errors that say where a value is wrong."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

from tglo_lightning.search.plain import Plain


@dataclass
class Inner(Plain):
    value: float
    names: tuple[str, ...] = ()


@dataclass
class Outer(Plain):
    inner: Inner | None
    rows: tuple[Inner, ...]
    count: int | None = None


def test_there_and_back():
    outer = Outer(Inner(np.float32(0.5), ("a", "b")), (Inner(math.nan), Inner(1e300)), np.int64(3))
    text = json.dumps(outer.to_dict(), allow_nan=False)
    assert json.loads(text)["rows"] == [{"value": None, "names": []}, {"value": 1e300, "names": []}]
    again = Outer.from_dict(json.loads(text) | {"more": 1})
    assert again.inner == Inner(0.5, ("a", "b"))
    assert math.isnan(again.rows[0].value)
    assert type(again.count) is int
    assert Outer.from_dict(Outer(None, ()).to_dict()) == Outer(None, ())


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"inner": 3}, r"it\.inner is a int"),
        ({"rows": [{"value": "x", "names": []}]}, r"it\.rows\[0\]\.value is a str"),
        ({"rows": [{"value": math.inf, "names": []}]}, r"it\.rows\[0\]\.value is inf"),
        ({"rows": [{"value": 1.0}]}, r"it\.rows\[0\] has no 'names'"),
        ({"count": 0.5}, r"it\.count is a float"),
        ({"count": 10**400}, r"it\.count is too large"),
    ],
)
def test_what_is_wrong_is_named(wrong, where):
    with pytest.raises(ValueError, match=where):
        Outer.from_dict({"inner": None, "rows": [], "count": None} | wrong)
