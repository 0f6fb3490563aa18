"""What stands for a missing value, and which names say what a column measures."""

import numpy as np
import pytest

from modalities.reading.quantities import TEMPERATURE, quantity_of, sentinels_in

RNG = np.random.default_rng(0)
DAYS = np.arange(9000)
COLD = (20 + 45 * np.sin(2 * np.pi * DAYS / 365.25) + 8 * RNG.normal(size=9000)).round(1)  # degF


class TestSentinels:
    @pytest.mark.parametrize("sentinel", [-99.0, -99.9, -999.0])
    def test_one_that_lies_nearer_than_the_seasons(self, sentinel):
        values = COLD.copy()
        values[100:130] = sentinel
        assert np.ptp(COLD) > COLD.min() + 99
        assert sentinels_in(values) == [(sentinel, 30)]
        values[200:220] = 999.9  # and another at the other end
        assert sorted(sentinels_in(values)) == [(sentinel, 30), (999.9, 20)]

    @pytest.mark.parametrize(
        "values",
        [
            np.append((COLD - 45).clip(-99), [-99.0, -99.0]),  # where it is as cold as that
            np.append(COLD, -99.0),  # once: nobody writes one missing value only
            np.append(COLD, [-9.0] * 30),
            np.append(RNG.integers(-90, -30, 500), [-99.0] * 9),  # a signal in dBm
            np.append(RNG.integers(-3, 12, 500) * 33.0, [-99.0] * 9),  # steps of 33
            np.append(RNG.integers(-140, -110, 500), [-99.0] * 9),  # above all others
            np.append(RNG.integers(-5, 75, 500), [99.0] * 9),  # a price
        ],
        ids=["cold", "once", "-9", "signal", "steps", "above", "price"],
    )
    def test_what_may_be_measured_stays(self, values):
        assert sentinels_in(np.asarray(values, float)) == []


class TestNamesOfTemperatures:
    @pytest.mark.parametrize(
        "name",
        [
            "T (degC)", "Temp", "temperature", "Max Temp (°C)", "Temperature(°C)", "temperature_2m_max (°C)",
            "tas",
            "Temperature @ 2m [deg C]", "T2M", "Tair", "tmin", "air_temp_1", "Outdoor Temp [C]",
            "Température (°C)",
            "Nacelle ambient temperature (°C)", "Mean air temperature",
        ],
    )  # fmt: skip
    def test_of_the_air(self, name):
        assert quantity_of(name, "degC") == TEMPERATURE

    @pytest.mark.parametrize(
        "name",
        ["Stator temperature 1 (°C)", "Gear oil temperature (°C)", "T stator [C]", "temp_cpu", "tempo"],
    )
    def test_of_a_machine(self, name):
        assert quantity_of(name, "degC") is None
