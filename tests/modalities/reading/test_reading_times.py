"""Offsets and names of zones behind times."""

import numpy as np
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


class TestTimesCutShort:
    """Some programs leave out the midnight, or the fraction of whole seconds."""

    @pytest.mark.parametrize("skipped", [0, 1, 5], ids="first row {}".format)
    @pytest.mark.parametrize(
        "day, clock",
        [
            ("%d.%m.%Y", " %H:%M"),
            ("%m/%d/%Y", " %I:%M:%S %p"),
            ("%d %b %Y", ", %H:%M:%S"),
            ("%Y/%m/%d", "T%H:%M"),
        ],
    )
    def test_a_day_alone_is_its_midnight(self, day, clock, skipped):
        hours = pd.date_range("2006-03-12", periods=300, freq="1h")[skipped:]
        texts = [hour.strftime(day if hour.hour == 0 else day + clock) for hour in hours]
        expected = hours.as_unit("s").astype("int64").tolist()
        for settings in (TimeSettings(), TimeSettings(time_format=day + clock)):
            assert read_times([pd.Series(texts, name="time")], settings).seconds.tolist() == expected

    @pytest.mark.parametrize("day", ["%d.%m.%Y ", ""])
    @pytest.mark.parametrize("mark", [".", ","])
    @pytest.mark.parametrize("zone", ["", " +0200"])
    @pytest.mark.parametrize("skipped", [0, 1])
    def test_whole_seconds_have_no_fraction(self, day, mark, zone, skipped):
        if zone and not day:
            return
        moments = pd.date_range("2006-03-31 22:00:00", periods=400, freq="50ms")[skipped:]
        texts = [
            f"{moment:{day}%H:%M:%S}"
            + (f"{mark}{moment.microsecond // 1000:03}" if moment.microsecond else "")
            + zone
            for moment in moments
        ]
        form = f"{day}%H:%M:%S.%f" + (" %z" if zone else "")
        for settings in (TimeSettings(dated=False), TimeSettings(time_format=form, dated=False)):
            found = read_times([pd.Series(texts, name="time")], settings)
            assert found.seconds - found.seconds[0] == pytest.approx(0.05 * np.arange(len(texts)), abs=1e-5)
            assert found.utc_offset_s == (7200 if zone else 0)

    @pytest.mark.parametrize("bad", ["31.03.2006 ??", "start", "31.03.2006"])
    def test_one_odd_cell_decides_nothing(self, bad):
        texts = [bad, *(f"{hour:%d.%m.%Y %H:%M}" for hour in HOURS[1:])]
        found = read_times([pd.Series(texts, name="time")], TimeSettings())
        assert found.seconds[1:].tolist() == HOURS[1:].as_unit("s").astype("int64").tolist()

    def test_a_day_alone_is_midnight_where_every_one_that_is_looked_at_is(self):
        hours = pd.date_range("2006-03-12", periods=59 * 24 + 1, freq="1h")
        texts = [hour.strftime("%d.%m.%Y %H:%M").removesuffix(" 00:00") for hour in hours]
        found = read_times([pd.Series(texts, name="time")], TimeSettings())
        assert found.seconds.tolist() == hours.as_unit("s").astype("int64").tolist()

    def test_a_day_alone_says_no_offset(self):
        texts = ["01.04.2006", *(f"{hour:%d.%m.%Y %H:%M} +0200" for hour in HOURS)]
        found = read_times([pd.Series(texts, name="time")], TimeSettings())
        assert np.isnan(found.seconds).tolist() == [True] + [False] * len(HOURS)
