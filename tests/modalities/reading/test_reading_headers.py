"""Which of two lines is the header, and which lines are none."""

import numpy as np
import pytest

from modalities.reading.dialects import TableSettings
from modalities.reading.tables import Table

ROWS = [f"2019 01 01 {n:02} 50 {200 + n} 7.{n} 8.{n} 1.5 11.{n}" for n in range(24)]
NAMES = "#YY  MM DD hh mm WDIR WSPD GST  WVHT ATMP"
UNITS = "#yr  mo dy hr mn degT m/s  m/s     m degC"


def opened(path, *lines, rows=ROWS, **settings):
    path.write_text("\n".join([*lines, *rows]) + "\n")
    return Table.open(path, TableSettings(**settings))


class TestTwoLinesInComments:
    @pytest.mark.parametrize("before", [[], ["# National Data Buoy Center", "#"]])
    def test_the_upper_is_the_header_above_units(self, tmp_path, before):
        found = opened(tmp_path / "x.csv", *before, NAMES, UNITS)
        assert found.names == tuple(NAMES.strip("#").split())
        assert found.units["ATMP"] == "degC" and found.units["WSPD"] == "m/s"
        assert "the header stands in a comment, above one that holds units" in found.reading
        assert len(found.read(["GST"])) == 24

    def test_a_remark_of_as_many_words_is_none(self, tmp_path):
        remark = "# " + " ".join(f"word{'abcdefghij'[n]}" for n in range(10))
        assert opened(tmp_path / "x.csv", remark, NAMES).names[:3] == ("YY", "MM", "DD")

    def test_named_columns_are_taken_before_a_comment(self, tmp_path):
        names = ("year", "month", "day", "hour", "minute", "a", "b", "c", "d", "e")
        assert opened(tmp_path / "x.csv", NAMES, csv_columns=names).names == names


class TestLinesBelowTheNames:
    def test_types_of_usgs(self, tmp_path):
        rows = [f"USGS\t01646500\t2019-01-01 {n:02}:15\tEST\t{1000 + n}\tA" for n in range(24)]
        head = ["# U.S. Geological Survey", "#  69928   00060     Discharge, cubic feet per second", "#"]
        names = "agency_cd\tsite_no\tdatetime\ttz_cd\t69928_00060\t69928_00060_cd"
        found = opened(tmp_path / "x.tsv", *head, names, "5s\t15s\t20d\t6s\t14n\t10s", rows=rows)
        assert found.names == tuple(names.split("\t")) and not found.units
        assert "line 5 holds types" in found.reading and "line 4 is the header" in found.reading
        assert found.read(["69928_00060"])["69928_00060"].tolist() == [*range(1000, 1024)]

    def test_cells_that_come_twice_are_no_names_below_others(self, tmp_path):
        rows = [f"2020-01-01 {n:02}:00,{n}.5,{n}.25,{n}.75" for n in range(24)]
        found = opened(tmp_path / "x.csv", "time,inside,outside,attic", "clock,room,room,room", rows=rows)
        assert found.names == ("time", "inside", "outside", "attic")
        found = opened(tmp_path / "x.csv", "report,of,three,rooms", "time,temp,temp,temp", rows=rows)
        assert found.names == ("time", "temp", "temp.1", "temp.2"), "the lower names the time"

    def test_a_title_above_a_header_of_units_words_is_none(self, tmp_path):
        rows = [f"{n}.0,{n}.5" for n in range(24)]
        assert opened(tmp_path / "x.csv", "Station,Berlin", "time,mm", rows=rows).names == ("time", "mm")

    def test_units_that_may_be_parts_of_times_are_units(self, tmp_path):
        rows = [f"{n},{n}.5" for n in range(24)]
        assert opened(tmp_path / "x.csv", "elapsed,rain", "min,mm", rows=rows).names == ("elapsed", "rain")

    def test_the_first_row_of_texts_is_kept(self, tmp_path):
        rows = [f"{word},{word}" for word in ("yes", "no", "maybe")]
        for skip in (None, 0):
            found = opened(tmp_path / "x.csv", "said,meant", rows=rows, skip_lines=skip)
            assert found.read(["said"])["said"].tolist() == ["yes", "no", "maybe"]


SEQUENCES = ["".join(np.random.default_rng(seed).choice([*"acgt"], 57)) for seed in range(6)]


class TestSequences:
    @pytest.mark.parametrize("skip", [None, 0])
    @pytest.mark.parametrize("label", ["1", "promoter"])
    def test_a_line_with_one_is_no_header(self, tmp_path, label, skip):
        rows = [f"{bases},{label}" for bases in SEQUENCES]
        with pytest.raises(ValueError, match=r"no header line: line 1 .*csv_columns=\[sequence,c2\]"):
            opened(tmp_path / "x.csv", rows=rows, skip_lines=skip)
        found = opened(tmp_path / "x.csv", rows=rows, skip_lines=skip, csv_columns=("sequence", "label"))
        assert found.read(["sequence"])["sequence"].tolist() == SEQUENCES
