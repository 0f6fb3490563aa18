import numpy as np
from weather_files import frame, read_alone, write

from modalities.weather import Weather
from modalities.weather.variables import Cleaning, clean


class TestBadCells:
    def test_sentinels(self, tmp_path):
        table = frame()
        table.loc[3, "a"], table.loc[5, "b"], table.loc[7, "b"] = -9999, 9999, np.inf
        write(tmp_path / "x.csv", table)
        rest = read_alone(tmp_path / "x.csv")
        assert np.argwhere(~rest.sample.observed).tolist() == [[3, 0], [5, 1], [7, 1]]
        assert rest.quality["x.csv"]["missing_values"] == {"a": 1, "b": 1}
        kept = read_alone(tmp_path / "x.csv", missing_values=("-1",), detect_missing=False)
        assert kept.sample.values[5, 1] == 9999

    def test_impossible_values_of_a_known_variable(self, tmp_path):
        table = frame(100).rename(columns={"a": "temp_air"}).assign(temp_air=np.linspace(-5, 5, 100))
        table.loc[4, "temp_air"] = 73.2
        write(tmp_path / "x.csv", table)
        columns = ("temp_air", "b")
        rest = read_alone(tmp_path / "x.csv", columns=columns)
        assert rest.quality["x.csv"]["outside_limits"] == {"temp_air": 1}
        assert np.argwhere(~rest.sample.observed).tolist() == [[4, 0]]
        assert read_alone(tmp_path / "x.csv", columns=columns, limits=False).sample.observed.all()
        write(tmp_path / "x.csv", table.assign(temp_air=table["temp_air"] + 273.15))
        reason = read_alone(tmp_path / "x.csv", columns=columns).reasons["x.csv"]
        assert reason.startswith(
            "temp_air is outside [-95, 60] degC in 100 of 100 values, it looks like K: set "
            "modality.units.temp_air=K"
        )
        right = read_alone(tmp_path / "x.csv", columns=columns, units={"temp_air": "K"})
        np.testing.assert_allclose(right.sample.values[:3, 0], np.linspace(-5, 5, 100)[:3], atol=1e-4)


def test_values_beyond_all_measure_are_missing_and_counted():
    values = np.array([[1.0, 2.0], [1e19, 3.0], [-1e300, 1e18]])
    cleaning = Cleaning((), detect_missing=True, limits=True, units={})
    cleaned, account = clean(values, ("a", "b"), cleaning, known_units=False, units={})
    np.testing.assert_array_equal(cleaned, [[1, 2], [np.nan, 3], [np.nan, 1e18]])
    assert account.counts == {"absurd_values": {"a": 2}}


def test_units_are_named_where_they_are_known():
    assert Weather(columns=("a", "b")).spec.units == "as in the source"
    units = Weather(columns=("temp_air", "a", "ghi")).spec.units
    assert units == "temp_air in degC, ghi in W/m2, others as in the source"


def test_what_a_machine_has_may_be_hotter_than_the_air(tmp_path):
    name = "Stator temperature 1 (°C)"
    table = frame(100).assign(a=np.linspace(60, 90, 100)).rename(columns={"a": name})
    rest = read_alone(write(tmp_path / "x.csv", table), columns=(name, "b"))
    assert not rest.reasons and rest.sample.observed.all()


def test_a_unit_that_the_file_says_is_believed_or_doubted_aloud(tmp_path):
    name = "Outdoor temp (°C)"
    table = frame(100).assign(a=np.linspace(55, 90, 100)).rename(columns={"a": name})
    path = write(tmp_path / "x.csv", table)
    (reason,) = read_alone(path, columns=(name, "b")).reasons.values()
    assert f"the file says degC: if that is wrong, set modality.units.{name}=degF, or set" in reason
    assert reason.endswith("modality.limits=false") and "looks like" not in reason
    assert read_alone(path, columns=(name, "b"), limits=False).sample.observed.all()
