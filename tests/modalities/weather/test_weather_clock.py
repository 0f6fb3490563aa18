import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from weather_files import HOUR, frame, read_alone, write

from modalities.reading.times import TimeSettings, read_times
from modalities.weather.clock import season, stamp


def to_seconds(column, time_format, timezone):
    times = read_times([column], TimeSettings(time_format, timezone))
    return times.seconds, times.utc_offset_s


class TestTimes:
    def test_unreadable_times_are_counted_and_many_are_refused(self, tmp_path):
        table = frame()
        table["time"] = table["time"].astype(str)
        write(tmp_path / "x.csv", table.replace({"time": {table["time"][50]: "soon"}}))
        rest = read_alone(tmp_path / "x.csv")
        assert rest.quality["x.csv"]["unreadable_times"] == 1
        assert np.flatnonzero(~rest.sample.observed.any(axis=1)).tolist() == [50]
        words = table.assign(time=frame()["time"].dt.strftime("day %d of %m %Y, %H o'clock"))
        write(tmp_path / "x.csv", words)
        reason = read_alone(tmp_path / "x.csv").reasons["x.csv"]
        assert '"day 01 of 01 2020, 00 o\'clock"' in reason and "modality.time_format" in reason
        told = read_alone(tmp_path / "x.csv", time_format="day %d of %m %Y, %H o'clock")
        assert len(told.sample.values) == 100

    @pytest.mark.parametrize(
        "texts, settings, expected",
        [
            (["2020-06-01T02:00:00+02:00"], {}, ["2020-06-01 00:00"]),
            (["2020-06-01T00:00:00Z"], {"timezone": "Asia/Tokyo"}, ["2020-06-01 00:00"]),
            (["2020-06-01 02:00"], {"timezone": "Europe/Berlin"}, ["2020-06-01 00:00"]),
            (["2020-06-01"], {"timezone": "Asia/Tokyo"}, ["2020-05-31 15:00"]),
            (["06/01/20 00h +0200"], {"time_format": "%m/%d/%y %Hh %z"}, ["2020-05-31 22:00"]),
            # Clocks go forward over 02:30 and back over it: neither hour is guessed
            (
                ["2020-03-29 02:30", "2020-03-29 04:00"],
                {"timezone": "Europe/Berlin"},
                [None, "2020-03-29 02:00"],
            ),
            (
                ["2020-10-25 02:30", "2020-10-25 04:00"],
                {"timezone": "Europe/Berlin"},
                [None, "2020-10-25 03:00"],
            ),
        ],
    )
    def test_zones(self, texts, settings, expected):
        options = {"time_format": "", "timezone": "UTC", **settings}
        seconds, _ = to_seconds(pd.Series(texts), **options)
        wanted = [np.nan if text is None else pd.Timestamp(text, tz="UTC").timestamp() for text in expected]
        np.testing.assert_array_equal(seconds, wanted)

    @pytest.mark.parametrize(
        "texts, timezone, hours",
        [
            (["2020-06-01T02:00:00+02:00"], "UTC", 2),
            (["2020-06-01T02:00:00-0930"], "UTC", -9.5),
            (["2020-06-01 02:00"], "Europe/Berlin", 1),  # standard time, in summer too
            (["2020-06-01 02:00"], "UTC", 0),
        ],
    )
    def test_the_offset_of_local_time(self, texts, timezone, hours):
        assert to_seconds(pd.Series(texts), "", timezone)[1] == hours * HOUR

    @given(st.floats(1e8, 9e9), st.sampled_from([1, 1e3, 1e6, 1e9]))
    def test_numbers_are_told_by_their_size(self, seconds, unit):
        found, _ = to_seconds(pd.Series([seconds * unit]), "", "UTC")
        np.testing.assert_allclose(found, [seconds], rtol=1e-9)

    def test_numbers_with_a_format(self):
        found, _ = to_seconds(pd.Series([2020010100, 2020010101]), "%Y%m%d%H", "UTC")
        np.testing.assert_array_equal(found, 1577836800 + HOUR * np.arange(2))


def test_advice_on_times_works_on_a_command_line():
    times = pd.Series(["the 31st of 12"] * 3)
    with pytest.raises(ValueError, match=r"modality\.time_format='\"%d\.%m\.%Y %H:%M\"'"):
        to_seconds(times, "", "UTC")


class TestSamples:
    @pytest.mark.parametrize("month, name", [(1, "DJF"), (3, "MAM"), (8, "JJA"), (11, "SON"), (12, "DJF")])
    def test_seasons(self, month, name):
        middle = pd.Timestamp(2020, month, 15).timestamp()
        assert season(middle - HOUR, middle + HOUR) == name
        assert season(middle - 1e7, middle + 1e7) == ""

    def test_stamps_tell_milliseconds_only_where_there_are_some(self):
        assert stamp(1577836800.0) == "2020-01-01T00:00:00"
        assert stamp(1577836800.02) == "2020-01-01T00:00:00.020"
