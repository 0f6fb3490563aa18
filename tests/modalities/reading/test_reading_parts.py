"""Parts of a time whose columns are called alike, or by two letters."""

import numpy as np
import pandas as pd
import pytest

from modalities.reading.columns import may_hold_minutes, part_columns, time_columns
from modalities.reading.tables import Table
from modalities.reading.times import TimeSettings, read_times
from modalities.weather import Weather

TIMES = pd.date_range("2019-01-01 00:50", periods=200, freq="10min")
PARTS = [TIMES.year, TIMES.month, TIMES.day, TIMES.hour, TIMES.minute]


def written(path, names, columns):
    """A table of columns between blanks, as it is read back."""
    rows = [" ".join(map(str, row)) for row in zip(*columns, strict=True)]
    path.write_text("\n".join([" ".join(names), *rows]) + "\n")
    return Table.open(path).head()


def seconds(frame, names):
    return read_times([frame[name] for name in names], TimeSettings()).seconds


@pytest.mark.parametrize(
    "names",
    ["YYYY MM DD hh mm", "YYYY MM DD HH MM", "YY MM DD hh mm", "yr mnth dy hr mn", "year mo day hour min"],
)
def test_minutes_are_behind_the_hours(tmp_path, names):
    frame = written(tmp_path / "x.csv", [*names.split(), "WSPD"], [*PARTS, np.arange(200) % 9 + 0.5])
    found = time_columns(frame, "")
    assert found == tuple(frame.columns[:5])
    np.testing.assert_array_equal(seconds(frame, found), TIMES.as_unit("s").astype("int64"))


def test_minutes_may_come_first(tmp_path):
    columns = [TIMES.hour, TIMES.minute, TIMES.day, TIMES.month, TIMES.year, np.arange(200) / 4]
    frame = written(tmp_path / "x.csv", "HH MM DD MM YYYY T".split(), columns)
    assert part_columns(frame) == ("YYYY", "MM.1", "DD", "HH", "MM")
    np.testing.assert_array_equal(seconds(frame, part_columns(frame)), TIMES.as_unit("s").astype("int64"))


def test_millimetres_are_no_minutes():
    hours = pd.date_range("2019-01-01", periods=48, freq="1h")
    head = pd.DataFrame({"YYYY": hours.year, "MM": hours.month, "DD": hours.day, "hh": hours.hour})
    assert part_columns(head.assign(mm=np.arange(48) / 10)) == ("YYYY", "MM", "DD", "hh")
    assert part_columns(head.assign(mn=np.arange(48) - 9)) == ("YYYY", "MM", "DD", "hh")
    plain = head.rename(columns={"MM": "month"}).assign(mm=np.arange(48) % 3)
    assert part_columns(plain) == ("YYYY", "month", "DD", "hh")


@pytest.mark.parametrize("shift", [0, 100])
def test_years_without_a_century(shift):
    times = pd.date_range("1998-12-31", periods=800, freq="1D")
    frame = pd.DataFrame({"YY": times.year % 100, "MM": times.month, "DD": times.day})
    if shift:
        frame["YY"] = times.year
    np.testing.assert_array_equal(seconds(frame, ["YY", "MM", "DD"]), times.as_unit("s").astype("int64"))


def test_minutes_of_another_name_can_be_named():
    frame = pd.DataFrame(dict(zip(("YYYY", "MM", "DD", "hh", "Minuten"), PARTS, strict=True)))
    assert part_columns(frame) == ("YYYY", "MM", "DD", "hh")
    assert may_hold_minutes(part_columns(frame), frame["Minuten"])
    assert not may_hold_minutes(part_columns(frame), frame["Minuten"] + 10.5)
    np.testing.assert_array_equal(seconds(frame, frame.columns), TIMES.as_unit("s").astype("int64"))


def test_a_buoy_is_suggested_with_its_step(tmp_path):
    head = "#YY MM DD hh mm WDIR WSPD ATMP\n#yr mo dy hr mn degT m/s degC\n"
    values = np.random.default_rng(0).normal(10, 3, (200, 3)).round(1)
    rows = [" ".join(map(str, [*parts, *row])) for *parts, row in zip(*PARTS, values, strict=True)]
    (tmp_path / "44025h2019.txt").write_text(head + "\n".join(rows) + "\n")
    found = Weather.suggest(tmp_path)
    assert found is not None and not found.problem, found
    assert found.settings == {"columns": ("WDIR", "WSPD", "ATMP"), "freq": "10min"}
