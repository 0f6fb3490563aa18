"""Which columns hold the times, where several could."""

import numpy as np
import pandas as pd
import pytest

from modalities.reading.columns import part_columns, time_columns
from modalities.reading.times import TimeSettings, read_times
from modalities.weather import Weather

HOURS = pd.date_range("2020-01-01", periods=60 * 24, freq="1h")
CALENDAR = {"year": HOURS.year, "month": HOURS.month, "day": HOURS.day}
TEXTS = HOURS.strftime("%Y-%m-%d %H:%M")
BEFORE = HOURS - pd.Timedelta(hours=1)


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


class TestPartsOfATimeOfDay:
    DAYS = HOURS[::24]

    def test_the_least_of_a_day_is_no_minute(self):
        calendar = {"year": self.DAYS.year, "month": self.DAYS.month, "day": self.DAYS.day}
        head = pd.DataFrame({**calendar, "min": np.arange(60), "max": np.arange(60) + 5})
        assert part_columns(head) == ("year", "month", "day")
        assert part_columns(pd.concat([head, head])) == ("year", "month", "day")
        hourly = head.assign(hour=7, sec=3).drop(columns="min")
        assert part_columns(hourly) == ("year", "month", "day", "hour")

    def test_with_hours_it_is_one(self):
        head = pd.DataFrame({**CALENDAR, "hour": HOURS.hour, "min": 30, "sec": 15})
        assert part_columns(head) == ("year", "month", "day", "hour", "min", "sec")


class TestDaysWithAClockBesideThem:
    @pytest.mark.parametrize(
        "columns",
        [
            {"DATE (MM/DD/YYYY)": HOURS.strftime("%m/%d/%Y"), "MST": HOURS.strftime("%H:%M")},
            {"dteday": HOURS.strftime("%Y-%m-%d"), "hr": HOURS.hour},
            {"dteday": HOURS.strftime("%Y-%m-%d 00:00:00"), "HH": HOURS.hour},
            {"YYYYMMDD": BEFORE.strftime("%Y%m%d").astype(int), "HH": BEFORE.hour + 1},
            {"tag": HOURS.strftime("%d.%m.%Y"), "uhr": HOURS.strftime("%H:%M:%S")},
        ],
        ids=["NREL", "bikes", "midnights", "KNMI", "unusual names"],
    )  # fmt: skip
    def test_are_one_time(self, columns):
        table = {**columns, "temp": np.arange(len(HOURS)) % 70 / 10}
        names = time_columns(pd.DataFrame(table)[:200], "")
        assert names == tuple(columns)
        np.testing.assert_array_equal(read(columns, names), HOURS.as_unit("s").astype("int64"))

    @pytest.mark.parametrize("name", ["HR", "hr"])
    def test_a_humidity_or_a_heart_rate_is_no_hour(self, name):
        table = {"date": HOURS.strftime("%d/%m/%Y"), "heure": HOURS.strftime("%H:%M"), "T": 3.1}
        assert time_columns(pd.DataFrame({**table, name: 81}), "") == ("date", "heure")
        assert time_columns(pd.DataFrame({**table, name: 14}), "") == ("date", "heure")
        days = pd.DataFrame({"date": table["date"], "station": HOURS.hour, "T": 3.1})
        for values in (60 + HOURS.hour, 7.5, np.nan):
            assert time_columns(days.assign(**{name: values}), "") == ("date",)
        parts = pd.DataFrame({**CALENDAR, "time": table["heure"], name: 60 + HOURS.hour})
        assert time_columns(parts, "") == ("year", "month", "day", "time")
        moving = pd.DataFrame({"time": np.arange(90) // 30, "x": 0.1, "y": 0.2, "z": 0.9})
        for values in (80, 0):
            assert time_columns(moving.assign(**{name: values}), "") == ("time",)

    def test_a_sunrise_is_no_clock_of_the_rows(self):
        days = pd.date_range("2020-01-01", periods=60, freq="1D").repeat(3)
        rises = days + pd.to_timedelta(np.random.default_rng(0).integers(300, 500, 180), unit="min")
        sets = rises + pd.Timedelta(hours=9)
        columns = {"date": days.strftime("%Y-%m-%d"), "sunrise": rises.strftime("%H:%M")}
        assert time_columns(pd.DataFrame(columns), "") == ("date",)
        columns["sunset"] = sets.strftime("%H:%M")
        assert time_columns(pd.DataFrame(columns), "") == ("date",)
        assert time_columns(pd.DataFrame(columns).rename(columns={"date": "dteday"}), "") == ("dteday",)

    def test_whole_times_want_no_hour(self):
        times = HOURS[:90].repeat(2)  # of two stations
        head = pd.DataFrame({"date": times.strftime("%Y-%m-%d %H:%M"), "hour": times.hour})
        assert time_columns(head, "") == ("date",)
