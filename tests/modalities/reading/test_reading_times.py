"""Offsets and names of zones behind times."""

import pandas as pd
import pytest

from modalities.reading.times import TimeSettings, read_times

HOURS = pd.date_range("2006-03-31 22:00", periods=48, freq="1h")
HERE = TimeSettings(timezone="America/New_York")  # whose hours none of these times is


def seconds(texts) -> list[float]:
    found = read_times([pd.Series(texts, name="time")], HERE)
    assert found.dated
    return found.seconds.tolist()


class TestOffsets:
    @pytest.mark.parametrize("gap", ["", " "])
    @pytest.mark.parametrize("offset", ["+0200", "+02:00"])
    @pytest.mark.parametrize("fraction", ["", ".000"])
    def test_an_offset_counts_with_or_without_a_blank_before_it(self, gap, offset, fraction):
        local = (HOURS + pd.Timedelta(hours=2)).strftime("%Y-%m-%d %H:%M:%S")
        texts = [f"{text}{fraction}{gap}{offset}" for text in local]
        assert seconds(texts) == (HOURS.as_unit("s").astype("int64")).tolist()
        assert read_times([pd.Series(texts, name="time")], HERE).utc_offset_s == 7200

    @pytest.mark.parametrize("end", ["+0000 UTC", "+0000 GMT", "+00:00 Z", "UTC", "Z"])
    def test_a_name_behind_an_offset_says_nothing_more(self, end):
        texts = [f"{hour:%Y-%m-%d %H:%M:%S} {end}" for hour in HOURS]
        assert seconds(texts) == (HOURS.as_unit("s").astype("int64")).tolist()

    def test_a_name_behind_another_offset_is_that_zone(self):
        local = (HOURS - pd.Timedelta(hours=5)).strftime("%d.%m.%Y %H:%M")
        assert seconds([f"{text} -0500 EST" for text in local]) == seconds(
            [f"{hour:%Y-%m-%d %H:%M}Z" for hour in HOURS]
        )

    @pytest.mark.parametrize("form", ["%Y-%m-%d", "%Y-%m-%d %H:%M", "%d-%m-%Y %H:%M"])
    def test_a_year_or_a_day_is_no_offset(self, form):
        days = pd.date_range("2006-01-05", periods=30, freq="1D", tz="America/New_York")
        assert seconds(days.strftime(form)) == [day.timestamp() for day in days]
