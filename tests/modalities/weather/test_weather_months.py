"""Series of months, quarters and years, whose steps are of unequal length."""

import numpy as np
import pandas as pd
import pytest
from weather_files import read_alone, sensor, write

from modalities.reading.times import TimeSettings, has_date, read_times
from modalities.weather import Weather
from modalities.weather.clock import MONTH_S, YEAR_S, step_seconds, usual_step


def series(months: int, n: int, form: str = "%Y-%m-%d", start: str = "1950-01-01") -> pd.DataFrame:
    times = pd.date_range(start, periods=n, freq=pd.DateOffset(months=months))
    rng = np.random.default_rng(0)
    return pd.DataFrame({"time": times.strftime(form), "a": np.arange(n) + rng.random(n), "b": rng.random(n)})


@pytest.mark.parametrize("months, freq", [(1, "1M"), (3, "3M"), (12, "1Y")])
@pytest.mark.parametrize("start", ["1950-01-01", "1950-01-15", "1950-03-28"])
def test_no_two_of_them_share_a_step(tmp_path, months, freq, start):
    table = series(months, 240, start=start) if months < 12 else series(months, 100, start=start)
    path = write(tmp_path / "x.csv", table)
    sample = read_alone(path, freq=freq).sample
    assert len(sample.values) == len(table) and sample.observed.all()
    np.testing.assert_allclose(sample.values[:, 0], table["a"], rtol=1e-6)
    found = Weather.suggest(path)
    assert found.settings == {"columns": ("a", "b"), "freq": freq} and not found.problem


def test_steps_that_would_merge_months_are_refused(tmp_path):
    path = write(tmp_path / "x.csv", series(1, 240))
    assert read_alone(path, freq="31D").reasons["x.csv"].endswith("set modality.freq=1M")
    assert read_alone(path).reasons["x.csv"].endswith("asks for one every 1h: set modality.freq=1M")
    years = write(tmp_path / "y" / "x.csv", series(12, 60))
    assert len(read_alone(years, freq="365D").sample.values) == 60  # one step a year all the same


@pytest.mark.parametrize("days", [28, 30, 31, 90])
def test_equal_steps_are_no_months(days):
    times = np.arange(100) * days * 86_400.0
    assert usual_step(times) == days * 86_400
    assert usual_step(times + 86_400 * (np.arange(100) % 2)) == pytest.approx(days * 86_400, abs=86_400)


def test_a_gap_of_years_stays_one(tmp_path):
    table = series(1, 240)
    rest = read_alone(write(tmp_path / "x.csv", table.drop(index=range(100, 160))), freq="1M")
    assert [row["length"] for row in rest.rows.values()] == [100, 80]


def test_units_of_a_calendar():
    assert step_seconds("1M") == MONTH_S and step_seconds("3M") == 3 * MONTH_S and step_seconds("Y") == YEAR_S
    with pytest.raises(ValueError, match="longer than nothing"):
        step_seconds("0M")
    assert sensor(freq="1M").spec.rate_hz == 1 / MONTH_S


class TestYears:
    def test_are_dates(self, tmp_path):
        assert has_date("%Y") and not has_date("%Y %H:%M") and not has_date("%m")
        table = series(12, 60, "%Y").rename(columns={"time": "YEAR"})
        path = write(tmp_path / "x.csv", table)
        for settings in ({}, {"time_format": "%Y"}):
            rest = read_alone(path, time_column="YEAR", freq="1Y", min_steps=5, **settings)
            assert sum(row["length"] for row in rest.rows.values()) == 60

    def test_are_none_where_a_count_will_do(self):
        column = pd.Series(np.arange(1900, 2000), name="t")
        assert not read_times([column], TimeSettings(dated=False)).dated
