"""Marks in numbers and headers of numbers."""

import gzip

import numpy as np
import pandas as pd
import pytest

from modalities.reading.dialects import TableSettings, sniff
from modalities.reading.tables import Table

HOURS = [f"2020-01-{day:02d} {hour:02d}:00" for day in range(1, 11) for hour in range(24)]


def table(path, numbers, *, separator=",", times=HOURS, **settings):
    """A table of times and numbers as they are written, quoted where the separator is in them."""
    cells = [f'"{number}"' if separator in number else number for number in numbers]
    lines = [f"{time}{separator}{cell}" for time, cell in zip(times, cells, strict=False)]
    path.write_text("\n".join([f"time{separator}load", *lines]) + "\n")
    return Table.open(path, TableSettings(**settings))


def loads(found) -> list[float]:
    return found.read(["load"])["load"].astype(float).tolist()


WHOLE = [f"{number:,}" for number in (977, 1219, 1003, 985, 12_345)] * 9
READ = [977, 1219, 1003, 985, 12_345] * 9


class TestThousands:
    def test_what_may_be_decimal_commas_is_refused(self, tmp_path):
        with pytest.raises(ValueError) as caught:
            table(tmp_path / "x.csv", WHOLE)
        assert str(caught.value) == (
            "column 'load' holds '1,219': set modality.decimal=. if that is 1219, "
            """modality.decimal='","' if it is 1.219"""
        )

    @pytest.mark.parametrize("decimal, expected", [(".", 1219), (",", 1.219)])
    def test_the_setting_decides(self, tmp_path, decimal, expected):
        assert loads(table(tmp_path / "x.csv", WHOLE, decimal=decimal))[:2] == [977, expected]

    @pytest.mark.parametrize("more", ["1,219.5", "1,219,000", "-2,000,000.25"])
    def test_a_second_mark_or_group_tells(self, tmp_path, more):
        found = table(tmp_path / "x.csv", [*WHOLE, more])
        assert loads(found) == [*READ, float(more.replace(",", ""))]
        assert "commas between thousands" in found.reading and "decimal commas" not in found.reading

    def test_decimals_of_other_cells_tell(self, tmp_path):
        assert loads(table(tmp_path / "x.csv", [*WHOLE, "3.125", "-0.5"]))[-3:] == [12_345, 3.125, -0.5]

    @pytest.mark.parametrize("more", ["0,977", "12,5", "1,2345"])
    def test_what_no_group_of_three_can_be_is_a_decimal_comma(self, tmp_path, more):
        found = table(tmp_path / "x.csv", [*WHOLE, more])
        assert loads(found)[:2] == [977, 1.219] and "decimal commas" in found.reading

    def test_decimal_commas_between_semicolons_are_no_question(self, tmp_path):
        found = table(tmp_path / "x.csv", ["12,345", "1,219", "3,001"] * 9, separator=";")
        assert loads(found)[:2] == [12.345, 1.219]

    def test_points_between_thousands(self, tmp_path):
        numbers = [number.replace(",", ".") for number in WHOLE]
        with pytest.raises(ValueError, match=r"modality\.decimal"):
            table(tmp_path / "x.csv", numbers, separator=";")
        assert loads(table(tmp_path / "x.csv", numbers, separator=";", decimal=",")) == READ
        found = table(tmp_path / "x.csv", [*numbers, "12,5"], separator=";")
        assert loads(found) == [*READ, 12.5] and "points between thousands" in found.reading
        assert loads(table(tmp_path / "x.csv", ["1.219", "2.977", "3.004"] * 9))[0] == 1.219

    def test_points_between_thousands_leave_dates_alone(self, tmp_path):
        times = [f"{hour[8:10]}.01.2020 {hour[11:]}" for hour in HOURS]
        found = table(tmp_path / "x.csv", ["1.219,5", "977,25"] * 30, separator=";", times=times)
        assert loads(found)[:2] == [1219.5, 977.25]
        assert found.read(["time"])["time"][0] == "01.01.2020 00:00"
        days = table(tmp_path / "x.csv", ["1.219,5"] * 30, separator=";", times=[t[:10] for t in times])
        assert days.read(["time"])["time"][0] == "01.01.2020"

    def test_a_text_among_marked_numbers_costs_its_cell_only(self, tmp_path):
        found = table(tmp_path / "x.csv", ["1,219.5", "977", "calm", "12,345"] * 9)
        cells = found.read(["load"])["load"].tolist()
        assert cells[2] == "calm" and [float(cells[place]) for place in (0, 1, 3)] == [1219.5, 977, 12_345]

    def test_marks_beyond_the_first_rows_are_read_like_the_others(self, tmp_path):
        numbers = [f"{number:.1f}" for number in np.linspace(1, 99, 220)] + ["1,219"]
        assert loads(table(tmp_path / "x.csv", numbers))[-1] == 1219


class TestHeadersOfNumbers:
    @pytest.mark.parametrize("skip_lines", [None, 0])
    def test_numbers_are_names_beside_that_of_the_time(self, tmp_path, skip_lines):
        path = tmp_path / "electricity.csv"
        lines = [f"{hour},{n},{n + 1}.5,3,4,5,{n % 7}" for n, hour in enumerate(HOURS)]
        path.write_text("\n".join(["date,0,1,2,3,4,OT", *lines]) + "\n")
        found = Table.open(path, TableSettings(skip_lines=skip_lines))
        assert found.names == ("date", "0", "1", "2", "3", "4", "OT")
        assert len(found.read(["0"])) == len(HOURS) and found.read(["1"])["1"][0] == 1.5

    def test_a_row_whose_time_is_missing_is_no_header(self, tmp_path):
        path = tmp_path / "x.csv"
        path.write_text("\n".join(["?,1,1,3", *(f"{hour},1,2,3" for hour in HOURS)]) + "\n")
        with pytest.raises(ValueError, match="no header line"):
            Table.open(path)
        path.write_text("\n".join(["unknown,1,1,3", *(f"{hour},1,2,3" for hour in HOURS)]) + "\n")
        with pytest.raises(ValueError, match="no header line"):  # names would all differ
            Table.open(path)


class TestHeadersOfSeveralLines:
    """A cell in quotation marks may go on in the next line."""

    HEADER = 'time,"temp\n(C)",rh'

    @pytest.mark.parametrize("before", ["", "# a remark\n\n", '# 5" of rain\n'])
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_no_row_is_lost(self, tmp_path, before, end, encoding):
        lines = [self.HEADER, *(f"{hour},{n}.5,{n}" for n, hour in enumerate(HOURS[:10]))]
        content = (before + "\n".join(lines) + "\n").replace("\n", end).encode(encoding)
        (tmp_path / "x.csv").write_bytes(content)
        (tmp_path / "x.csv.gz").write_bytes(gzip.compress(content))
        for name in ("x.csv", "x.csv.gz"):
            found = Table.open(tmp_path / name)
            assert found.read(["rh"])["rh"].tolist() == [*range(10)]
            assert len(found.head()) == 10

    def test_nor_where_a_mark_ends_every_line(self, tmp_path):
        lines = ["time,temp,rh;", *(f"{hour},{n}.5,{n};" for n, hour in enumerate(HOURS[:10]))]
        (tmp_path / "x.csv").write_text("\n".join(lines) + "\n")
        assert Table.open(tmp_path / "x.csv").read(["rh"])["rh"].tolist() == [*range(10)]

    def test_a_line_that_does_not_fit_is_named_by_its_number_in_the_file(self, tmp_path):
        lines = [self.HEADER, *(f"{hour},{n}.5,{n}" for n, hour in enumerate(HOURS[:10]))]
        lines[5] += ",1,2"
        (tmp_path / "x.csv").write_text("\n".join(lines) + "\n")
        with pytest.raises(ValueError, match="line 7 has 5 cells where the header names 3"):
            Table.open(tmp_path / "x.csv").read(["rh"])


class TestCodesBehindNumbers:
    def test_a_code_behind_a_comma_is_no_decimal(self, tmp_path):
        path = tmp_path / "noaa.csv"
        rows = [
            f'"{hour}","40.77944","-73.88027","+{n:04d},1","{-n:+05d},5","{10_000 + n},9"'
            for n, hour in enumerate(HOURS)
        ]
        path.write_text("\n".join(['"DATE","LATITUDE","LONGITUDE","TMP","DEW","SLP"', *rows]) + "\n")
        found = Table.open(path)
        assert "decimal commas" not in found.reading
        assert found.read(["TMP"])["TMP"][3] == "+0003,1"
        assert found.read(["LATITUDE"])["LATITUDE"][0] == 40.77944

    def test_decimal_commas_in_quotes_stay_such(self, tmp_path):
        found = table(tmp_path / "x.csv", ["-0,5", "12,5", "1,219", "7"] * 9)
        assert loads(found)[:4] == [-0.5, 12.5, 1.219, 7] and "decimal commas" in found.reading
        found = table(tmp_path / "x.csv", ["12,5", "1.219", "3,25"] * 9)  # a point between thousands
        assert loads(found)[0] == 12.5

    @pytest.mark.parametrize("cells", [("12,5", "3,4", "1013,2"), ("1013,2", "1001,5")])
    def test_decimal_commas_beside_a_column_with_points_stay_such(self, tmp_path, cells):
        names = ["time", "latitude", "load", "low", "pressure"][: 2 + len(cells)]
        quoted = ",".join(f'"{cell}"' for cell in cells)
        rows = [f"{hour},41.3,{quoted}" for hour in HOURS]
        (tmp_path / "x.csv").write_text("\n".join([",".join(names), *rows]) + "\n")
        found = Table.open(tmp_path / "x.csv")
        assert "decimal commas" in found.reading
        assert loads(found)[0] == float(cells[0].replace(",", "."))


def test_a_quoted_comma_in_a_header_that_is_a_comment(tmp_path):
    path = tmp_path / "turbine.csv"
    rows = [f"{hour},{n}.5,0.{n}" for n, hour in enumerate(HOURS)]
    names = '# Date and time,Wind speed (m/s),"Wind speed, Standard deviation (m/s)"'
    path.write_text("\n".join(["# This file was exported", names, *rows]) + "\n")
    found = Table.open(path)
    assert found.names == ("Date and time", "Wind speed (m/s)", "Wind speed, Standard deviation (m/s)")
    assert found.read(["Wind speed (m/s)"])["Wind speed (m/s)"][2] == 2.5


class TestMinusSigns:
    """Spreadsheets and publishers write a minus sign of its own (U+2212) for a hyphen."""

    NUMBERS = ("-1.5", "2.25", "-0.5", "-3", "1e-3", "-7.25") * 10

    def expected(self) -> list[float]:
        return [*map(float, self.NUMBERS)]

    @pytest.mark.parametrize("separator, decimal", [(",", "."), (";", ","), ("\t", ".")])
    def test_are_read_as_such(self, tmp_path, separator, decimal):
        written = [number.replace("-", "\u2212").replace(".", decimal) for number in self.NUMBERS]
        found = table(tmp_path / "x.csv", written, separator=separator)
        assert loads(found) == self.expected()
        assert [*found.head().select_dtypes("number").columns] == ["load"]

    def test_in_a_column_that_is_all_below_zero(self, tmp_path):
        found = table(tmp_path / "x.csv", ["\u221212.5", "\u22121,212.5"] * 30)
        assert loads(found) == [-12.5, -1212.5] * 30

    def test_in_texts_of_parquet(self, tmp_path):
        texts = [number.replace("-", "\u2212") for number in self.NUMBERS]
        frame = pd.DataFrame({"load": [*texts, None], "note": [*texts, "x"], "list": [[1.0]] * 61})
        frame.to_parquet(tmp_path / "x.parquet")
        found = Table.open(tmp_path / "x.parquet")
        assert loads(found)[:-1] == self.expected() and np.isnan(loads(found)[-1])
        assert "load" in found.head().select_dtypes("number")
        assert found.read(["note"], texts=["note"])["note"].tolist() == [*texts, "x"]

    def test_in_names_are_left(self, tmp_path):
        (tmp_path / "x.csv").write_text("time,W m\u22122,note\n" + "2020-01-01,\u22125,\u2212 cold\n" * 30)
        found = Table.open(tmp_path / "x.csv")
        assert found.names == ("time", "W m\u22122", "note")
        read = found.read(found.names)
        assert read["W m\u22122"].tolist() == [-5] * 30 and read["note"].tolist() == ["\u2212 cold"] * 30


class TestWhatWasFoundOut:
    """A dialect is found once for the same first bytes, settings and examples, and for nothing else."""

    def test_another_file_in_the_same_place_is_read_anew(self, tmp_path):
        path = tmp_path / "x.csv"
        path.write_text("a,b\n1,2\n3,4\n")
        assert sniff(path, TableSettings()).names == ("a", "b")
        path.write_text("c;d;e\n1;2;3\n3;4;5\n")
        found = sniff(path, TableSettings())
        assert (found.names, found.separator) == (("c", "d", "e"), ";")

    def test_other_settings_are_heard(self, tmp_path):
        path = tmp_path / "x.csv"
        path.write_text("".join(f"{k}.5,{k + 1}.5\n" for k in range(9)))
        with pytest.raises(ValueError, match="no header line"):
            sniff(path, TableSettings())
        assert sniff(path, TableSettings(csv_columns=("a", "b"))).names == ("a", "b")
        assert sniff(path, TableSettings(csv_columns=("c", "d"))).names == ("c", "d")
        with pytest.raises(ValueError, match=r"csv_columns=\[time"):
            sniff(path, TableSettings(), ["time", "u"])
        with pytest.raises(ValueError, match=r"csv_columns=\[x"):
            sniff(path, TableSettings(), ["x", "y"])
