"""Which columns hold the times, where several could."""

import numpy as np
import pandas as pd
import pytest

from modalities.reading.columns import time_columns
from modalities.reading.times import TimeSettings, read_times
from modalities.weather import Weather

HOURS = pd.date_range("2020-01-01", periods=60 * 24, freq="1h")
CALENDAR = {"year": HOURS.year, "month": HOURS.month, "day": HOURS.day}
TEXTS = HOURS.strftime("%Y-%m-%d %H:%M")


def read(columns: dict, names: tuple[str, ...]) -> np.ndarray:
    frame = pd.DataFrame(columns)
    return read_times([frame[name] for name in names], TimeSettings()).seconds


class TestDatesBesideTheirParts:
    @pytest.mark.parametrize("name", ["date", "ds", "Valid_Time", "time"])
    def test_the_finer_ones_are_the_times(self, name):
        head = pd.DataFrame({name: TEXTS, **CALENDAR, "temp": 1.0})
        assert time_columns(head, "") == (name,)
        assert time_columns(head.drop(columns="day"), "") == (name,)

    def test_parts_are_where_they_are_finer(self):
        head = pd.DataFrame({"date": HOURS.strftime("%Y-%m-%d"), **CALENDAR, "hr": HOURS.hour})
        assert time_columns(head, "") == ("year", "month", "day", "hr")
        days = head.drop_duplicates("date")
        assert time_columns(days.assign(date=days["date"].str[8:]), "") == ("year", "month", "day", "hr")

    def test_a_whole_time_is_preferred_for_its_offset(self):
        head = pd.DataFrame({"time": TEXTS + "+01:00", **CALENDAR, "hour": HOURS.hour})
        assert time_columns(head, "") == ("time",)

    def test_what_is_suggested_for_a_table_with_both(self, tmp_path):
        noise = np.random.default_rng(0).normal(size=len(HOURS))
        pd.DataFrame({"date": TEXTS, **CALENDAR, "Temp": noise}).to_csv(tmp_path / "x.csv", index=False)
        found = Weather.suggest(tmp_path)
        assert found is not None and not found.problem
        assert found.settings == {"columns": ("Temp",), "freq": "1h"}


class TestPartsWithAClock:
    @pytest.mark.parametrize("clock", [HOURS.strftime("%H:%M"), HOURS.hour * 100])
    def test_the_time_of_day_may_have_its_own_column(self, clock):
        columns = {**CALENDAR, "time": clock}
        names = time_columns(pd.DataFrame(columns), "")
        assert names == ("year", "month", "day", "time")
        assert (np.diff(read(columns, names)) == 3600).all()

    def test_a_unit_in_a_name_does_not_lose_the_hour(self):
        columns = {"Year": HOURS.year, "Month": HOURS.month, "Day": HOURS.day, "Hour (UTC)": HOURS.hour}
        names = time_columns(pd.DataFrame(columns), "")
        assert names == tuple(columns)
        assert (np.diff(read(columns, names)) == 3600).all()
