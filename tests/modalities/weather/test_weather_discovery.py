import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
from weather_files import Rest, frame, sensor, write

from modalities.weather import Weather
from seqssl import UserError
from seqssl.runs.choosing import choose_recipe


class TestGoodInput:
    def test_files_of_a_folder_share_its_group(self, tmp_path):
        for name in ("oslo/2019.csv", "oslo/2020.csv", "rome/2020.csv"):
            write(tmp_path / name, frame())
        rest = Rest(sensor(), tmp_path)
        assert [row["group"] for row in rest.rows.values()] == ["oslo", "oslo", "rome"]

    def test_stations_of_several_years_are_groups(self, tmp_path):
        for name in ("2019/03772.csv", "2020/03772.csv", "2020/06610.csv", "2019/06610.csv"):
            write(tmp_path / name, frame())
        rest = Rest(sensor(), tmp_path)
        assert {row["group"] for row in rest.rows.values()} == {"03772", "06610"}


class TestTexts:
    """Tables in files that are called .txt and the like, and what else may be called so."""

    def test_of_numbers_are_tables_and_others_are_left_alone(self, tmp_path):
        write(tmp_path / "s1.txt", frame(), sep=";")
        write(tmp_path / "s2.DAT", frame(), sep="\t")
        write(tmp_path / "s3.log.gz", frame(), compression="gzip")
        write(tmp_path / "s4.data", frame().assign(flag="eor"))
        lines = {
            "README.txt": [f"{n}. Of the year 20{n}, 3 sensors." for n in range(10, 40)],
            "classes.txt": [f"{n} CLASS{n}" for n in range(30)],
            "y.txt": [f"{n % 3}" for n in range(30)],
            "seven.dat": [f"2020-01-{n:02d} 1 2" for n in range(1, 8)],
        }
        for name, text in lines.items():
            (tmp_path / name).write_text("\n".join(text) + "\n")
        (tmp_path / "binary.dat").write_bytes(np.random.default_rng(0).bytes(5000))
        rest = Rest(sensor(), tmp_path)
        assert not rest.reasons
        assert {key.partition("#")[0] for key in rest.rows} == {"s1.txt", "s2.DAT", "s3.log.gz", "s4.data"}

    def test_one_that_is_the_source_says_why_it_is_no_table(self, tmp_path):
        (tmp_path / "notes.txt").write_text("time\nnot a time\n")
        with pytest.raises(UserError, match="has no column a, b; its numeric columns"):
            Rest(sensor(), tmp_path / "notes.txt")

    def test_are_found_by_a_recipe_that_looks(self, tmp_path):
        """The household's power of UCI, with ? for what is missing."""
        times = pd.date_range("2006-12-16 17:24", periods=600, freq="1min")
        power = 4.0 + np.arange(600) % 7 / 8
        table = pd.DataFrame({"Date": times.strftime("%d/%m/%Y"), "Time": times.strftime("%H:%M:%S")})
        table = table.assign(Global_active_power=power, Voltage=230 + power).astype(str)
        table.iloc[50:60, 2:] = "?"
        write(tmp_path / "household_power_consumption.txt", table, sep=";")
        (tmp_path / "README.txt").write_text("Power, every minute.\n" * 20)
        recipe, settings, _ = choose_recipe(tmp_path)
        assert recipe == "weather_next_latent"
        assert settings == ['modality.columns=["Global_active_power", "Voltage"]', 'modality.freq="1min"']

    def test_beside_tables_are_left_alone(self, tmp_path):
        write(tmp_path / "jena.csv", frame())
        write(tmp_path / "jena.txt", frame(), sep=";")
        (tmp_path / "README.txt").write_text("The same, twice.\n" * 20)
        write(tmp_path / "small.txt", frame(30).rename(columns={"a": "c"}))
        (record, held_out) = sensor().records(tmp_path, "all")
        assert (record.key, held_out.key) == ("jena.csv", "jena.csv/valid")
        (notice,) = record.read().notices
        assert notice.startswith("texts of numbers such as jena.txt are left alone")
        assert choose_recipe(tmp_path)[1] == ['modality.columns=["a", "b"]', 'modality.freq="1h"']

    def test_beside_tables_of_something_else_are_told(self, tmp_path):
        write(tmp_path / "jena.txt", frame())
        (tmp_path / "stations.csv").write_text("station,height\nx,1\ny,2\n")
        reasons = Rest(sensor(), tmp_path).reasons
        assert reasons.keys() == {"stations.csv", "jena.txt"} and "left alone" in reasons["jena.txt"]
        write(tmp_path / "stations.csv", frame().rename(columns={"a": "c", "b": "d"}))
        with pytest.raises(UserError, match=r"has no column a, b; .* texts of numbers such as jena.txt"):
            Rest(sensor(), tmp_path)

    def test_beside_sounds_are_no_weather(self, tmp_path):
        for number in range(3):
            soundfile.write(tmp_path / f"{number}.wav", 0.1 * np.sin(np.arange(16_000)), 16_000)
            (tmp_path / f"{number}.txt").write_text("one two three\n")
        track = [f"{n}.0\t{n}.5\tword{n}" for n in range(40)]
        (tmp_path / "0.txt").write_text("\n".join(track) + "\n")
        assert Weather.suggest(tmp_path) is None
        assert choose_recipe(tmp_path)[0].startswith("speech")


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
