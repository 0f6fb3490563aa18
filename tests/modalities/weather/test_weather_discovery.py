import sys

import pytest
from weather_files import Rest, frame, sensor, write

from modalities.weather import Weather
from seqssl import UserError


class TestGoodInput:
    def test_files_of_a_folder_share_its_group(self, tmp_path):
        for name in ("oslo/2019.csv", "oslo/2020.csv", "rome/2020.csv"):
            write(tmp_path / name, frame())
        rest = Rest(sensor(), tmp_path)
        assert [row["group"] for row in rest.rows.values()] == ["oslo", "oslo", "rome"]


class TestBadCells:
    def test_a_column_that_some_files_lack_is_missing_there(self, tmp_path):
        write(tmp_path / "x.csv", frame().drop(columns="b"))
        write(tmp_path / "y.csv", frame())
        write(tmp_path / "z.csv", frame().rename(columns={"a": "c", "b": "d"}))
        rest = Rest(sensor(), tmp_path)
        assert rest.quality["x.csv"]["absent"] == ["b"]
        assert rest.samples["x.csv#2020-01-01T00:00:00"].observed.mean(axis=0).tolist() == [1, 0]
        assert rest.reasons == {"z.csv": "it has none of the chosen columns; it has c, d"}


class TestBadSources:
    def test_a_column_that_all_files_lack_is_told_with_what_there_is(self, tmp_path):
        write(tmp_path / "x.csv", frame().assign(name="text"))
        with pytest.raises(
            UserError, match=r"no column c; its numeric .* are a, b: .*modality.columns=\[a,b\]"
        ):
            Rest(sensor(columns=("a", "c")), tmp_path / "x.csv")
        with pytest.raises(UserError, match=r"no column temp_air, .*, total_sky_cover; its"):
            Rest(Weather(), tmp_path)

    def test_each_gets_its_reason(self, tmp_path):
        write(tmp_path / "good.csv", frame())
        write(tmp_path / "short.csv", frame(5))
        write(tmp_path / "rows.csv", frame(0))
        for name in ("empty.csv", "empty.parquet", "empty.nc", "empty.ts", "empty.epw"):
            (tmp_path / name).touch()
        (tmp_path / "blank.csv").write_text("\n\n")
        (tmp_path / "ragged.csv").write_text("time,a,b\n2020-01-01,1,2\n2020-01-02,1,2,3,4\n")
        (tmp_path / "longer.csv").write_text("time,a,b\n2020-01-01,1,2,3\n2020-01-02,1,2,3\n")
        for name in ("junk.parquet", "junk.nc", "junk.csv.gz", "junk.tm2", "junk.epw", "junk.ts"):
            (tmp_path / name).write_bytes(b"no such file\n" * 3)
        (tmp_path / "notes.txt").write_text("not looked at")
        rest = Rest(sensor(), tmp_path)
        assert {key.partition("#")[0] for key in rest.rows} == {"good.csv"}
        beginnings = {
            "blank.csv": "the file is empty",
            "junk.csv.gz": "not readable as a table: ",
            "junk.epw": "the first line names no station",
            "junk.nc": "not readable as nc: ",
            "junk.parquet": "not readable as Parquet: ",
            "junk.tm2": "the first line names no station",
            "junk.ts": "there is no line @data",
            "longer.csv": "not readable as a table: ",
            "ragged.csv": "not readable as a table: ",
            "rows.csv": "the table has no rows",
            "short.csv": "no stretch of 24 steps with 50% of them observed: 5 steps are in shorter ones",
            **{f"empty.{suffix}": "the file is empty" for suffix in ("csv", "parquet", "nc", "ts", "epw")},
        }
        assert rest.reasons.keys() == beginnings.keys()
        for name, beginning in beginnings.items():
            assert rest.reasons[name].startswith(beginning), rest.reasons[name]
            assert "\n" not in rest.reasons[name]

    @pytest.mark.parametrize("name, package", [("x.nc", "xarray"), ("x.epw", "pvlib.iotools")])
    def test_missing_packages_name_the_extra(self, tmp_path, monkeypatch, name, package):
        (tmp_path / name).write_text("LOCATION,Town,ST,USA\n")
        monkeypatch.setitem(sys.modules, package, None)
        assert "pip install 'seqssl[weather]'" in Rest(Weather(), tmp_path).reasons[name]
