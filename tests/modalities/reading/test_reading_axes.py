"""Names that are proposed for tables without a header."""

import numpy as np
import pytest

from modalities.reading.axes import likely_axes
from modalities.reading.headers import Line, example_names

XYZ = ("x", "y", "z")


def lines(*columns) -> list[Line]:
    return [Line(n, [f"{cell:.5g}" for cell in row]) for n, row in enumerate(np.column_stack(columns))]


def arm(scale: float = 1.0, seed: int = 0, n: int = 200) -> list[np.ndarray]:
    """Three axes of a sensor that turns in gravity."""
    rng = np.random.default_rng(seed)
    down, round_ = np.linspace(0.2, 2.9, n), np.linspace(0, 5, n)
    turned = np.stack([np.sin(down) * np.cos(round_), np.sin(down) * np.sin(round_), np.cos(down)], axis=1)
    return [*(scale * (turned + 0.02 * rng.normal(size=(n, 3)))).T]


def noise(count: int, seed: int = 9, n: int = 200) -> list[np.ndarray]:
    return [*np.random.default_rng(seed).normal(size=(count, n)) * 30]


SECONDS = np.arange(200) / 50


class TestThreeColumns:
    def test_behind_the_time_are_the_axes(self):
        assert example_names(lines(SECONDS, *arm()), XYZ) == ["time", "x", "y", "z"]
        assert example_names(lines(*arm()), XYZ) == ["x", "y", "z"]

    def test_of_others_are_found_by_gravity(self):
        activity = np.repeat([0.0, 4.0], 100)
        assert example_names(lines(SECONDS, *arm(9.81), activity), XYZ) == ["time", "x", "y", "z", "c5"]
        assert example_names(lines(SECONDS, *noise(2), *arm(1000)), XYZ)[3:] == ["x", "y", "z"]


class TestManyColumns:
    def test_the_last_ones_are_no_axes(self):
        """mHealth: 23 channels, and the activity."""
        table = lines(*noise(23), np.repeat([0.0, 4.0], 100))
        with pytest.raises(ValueError, match=r"no header line: 24 columns\. .* the accelerometer's x, y, z$"):
            example_names(table, XYZ)

    def test_those_that_look_like_axes_are_said_by_their_place(self):
        """PAMAP2: a time, an activity, a heart rate, a temperature, then the accelerometer."""
        table = lines(SECONDS, 0 * SECONDS + 5, 104 + SECONDS, 30 + SECONDS, *arm(9.81), *noise(10))
        with pytest.raises(ValueError, match=r"no header line: 17 columns\. .*columns 5 to 7 look like it"):
            example_names(table, XYZ)

    def test_names_are_cut_where_that_is_seen(self):
        assert example_names(lines(SECONDS, *noise(20)), ()) == [
            "time",
            *(f"c{n}" for n in range(2, 7)),
            "...",
            "c21",
        ]

    @pytest.mark.parametrize("last", [(), XYZ])
    def test_rows_that_are_windows(self, last):
        with pytest.raises(ValueError, match=r"128 columns of numbers and no time: .* X\.npy \(n, t, c\)"):
            example_names(lines(*noise(128)), last)


def test_a_resting_sensor_does_not_tell_which_columns_are_its_axes():
    still = [
        value + 1e-3 * np.random.default_rng(n).normal(size=200)
        for n, value in enumerate((0.0, 1.0, 0.0, 0.0))
    ]
    assert likely_axes([line.cells for line in lines(*still)], [0, 1, 2, 3]) == []


def test_cells_that_are_missing_or_texts_are_no_numbers():
    rows = [["NaN", "a"], ["1"]]
    assert likely_axes(rows, [0, 1]) == []
