"""Names of public collections: dates, activities, formats and placements in them are nobody's."""

import re
from itertools import product
from pathlib import PurePosixPath

import pytest

from modalities.reading.groups import Grouping
from modalities.reading.words import bare, undated

YEARS = (2019, 2020)
STATIONS = ("NC_Asheville_8_SSW", "NC_Durham_11_W", "AK_Barrow_4_ENE")
DAPHNET = ["S01R01", "S01R02", "S02R01", "S02R02", "S03R01", "S03R02", "S03R03", "S04R01", "S10R01"]
# Names, and what of a name says whose it is
NAMES = {
    "USCRN": ([f"CRNH0203-{y}-{s}.txt" for y, s in product(YEARS, STATIONS)], r"-\d{4}-(\w+)"),
    "USCRN by year": ([f"{y}/CRNH0203-{y}-{s}.txt" for y, s in product(YEARS, STATIONS)], r"-\d{4}-(\w+)"),
    "DWD": ([f"produkt_tu_stunde_{days}_{s}.txt" for days in ("20070401_20221231", "20220601_20231202")
             for s in ("00044", "00073", "04928")], r"_(\d{5})\."),
    "NDBC": ([f"{s}h{y}.txt" for s in ("44025", "41nt1", "ftpc1") for y in YEARS], r"^(\w{5})"),
    "Canada": ([f"en_climate_hourly_ON_{s}_{m}-2020_P1H.csv" for s in (61583, 61584) for m in ("01", "12")],
               r"ON_(\d+)"),
    "years first": ([f"{y}_{s}.csv" for y in YEARS for s in ("KJFK", "KLGA", "KEWR")], r"_(\w+)"),
    "days first": ([f"2021-03-{d:02}_{who}.csv" for d in (1, 2) for who in ("anna", "ben")], r"_(\w+)"),
    "31-01-2019": ([f"31-01-{y}_{who}.csv" for y in YEARS for who in ("anna", "ben")], r"_(\w+)"),
    "a station that comes once": (["2019_KJFK.csv", "2020_KJFK.csv", "2020_KLGA.csv"], r"_(\w+)"),
    "Daphnet": ([f"{name}.txt" for name in DAPHNET], r"^(S\d+)"),
    "activities": ([f"{act}_{who}.csv" for act in ("walk", "run") for who in ("anna", "ben")], r"_(\w+)"),
    "activities, counted": ([f"{act}_{who}_{n}.csv" for act in ("walk", "sit_down") for who in ("anna", "ben")
                             for n in (1, 2)], r"_([a-z]+)_\d"),
    "trials": ([f"trial{n}_{who}.csv" for n in (1, 2, 3) for who in ("anna", "ben")], r"_(\w+)"),
    "sensors": ([f"{sensor}_p{n}.csv" for sensor in ("acc", "gyro") for n in (1, 2)], r"_(\w+)"),
    "CREMA-D": ([f"Audio{kind}/{who}_DFA_{mood}_XX.{kind.lower()}" for kind in ("WAV", "MP3")
                 for who in (1001, 1002) for mood in ("ANG", "SAD")], r"/(\d+)"),
    "rates": ([f"Hip_{rate}Hz/{who}.csv" for rate in (25, 100) for who in ("P01", "P02")], r"/(\w+)"),
    "placements": ([f"{place}/{who}/{n}.csv" for place in ("left_wrist", "hip") for who in ("anna", "ben")
                    for n in (1, 2)], r"/(\w+)/"),
    "RAVDESS": ([f"{top}Actor_{a:02}/03-01-0{n}.wav" for top in ("", "audio_speech_actors_01-24/")
                 for a in (1, 2) for n in (1, 2)], r"(Actor_\d+)"),
    "days of persons": ([f"{who}_2021030{d}.csv" for who in ("anna", "ben") for d in (1, 2)], r"^(\w+)_2"),
    "persons whose numbers may be years": ([f"{who}_task{n}.csv" for who in (2001, 2002) for n in (1, 2)],
                                           r"^(\d+)"),
    "years of one station": ([f"KJFK_{y}.csv" for y in YEARS], r"(\d+)"),
    "counted calls of days": ([f"2021010{d}_call_{n}.csv" for d in (1, 2) for n in (1, 2)], r"^(\d+)"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_one_person_or_station_is_one_group(name):
    names, pattern = NAMES[name]
    grouping = Grouping.of(names, own=True)
    found = [grouping.group(path) or PurePosixPath(path).name.partition(".")[0] for path in names]
    wanted = [re.search(pattern, path)[1] for path in names]
    assert len({*zip(found, wanted, strict=True)}) == len({*found}) == len({*wanted})


INSIDE = {
    "HuGaDB": ([f"HuGaDB_v1_{act}_{who:02}_{n:02}.txt" for act in ("walking", "running", "sitting")
                for who in (1, 2, 3) for n in (0, 1)], r"_(\d+)_\d+\.", 3),
    "numbers": ([f"{act}_{who}.csv" for act in ("walk", "run") for who in ("01", "02")], r"_(\d+)\.", 1),
    "a constant first": ([f"sensor-{who}-{n}.csv" for who in ("a", "b") for n in (1, 2)], r"-(\w)-", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", INSIDE)
def test_an_inner_part_that_comes_again_is_said_with_the_pattern(name):
    names, pattern, place = INSIDE[name]
    doubt = Grouping.of(names, own=True).doubt
    setting = re.search(r"modality\.group_pattern='(.*)' makes groups", doubt)
    assert setting and f"{{{place}}}" in setting[1]
    told = Grouping.of([f"data/{path}" for path in names], setting[1])
    assert [told.group(f"data/{path}") for path in names] == [re.search(pattern, path)[1] for path in names]


@pytest.mark.parametrize(
    "names",
    [
        [f"common_voice_en_{n}.mp3" for n in range(9)],
        [f"anna_{n}.csv" for n in range(4)],
        [f"{who}_walk.csv" for who in ("anna", "ben", "cleo")],
        ["north.csv", "south.csv"],
        [f"{y}_{m:02}.csv" for y in YEARS for m in (1, 2, 3)],
        [f"era5_{y}_{m:02}.nc" for y in YEARS for m in (1, 2, 3)],
        [],
    ],
)
def test_where_nothing_comes_again_nothing_is_said(names):
    assert not Grouping.of(names, own=True).doubt


@pytest.mark.parametrize(
    "names, groups",
    [
        (["rec1_yes.wav", "rec2_yes.wav", "rec3_no.wav", "rec4_no.wav"], {""}),
        ([f"clip{n}_{'rain' if n % 2 else 'thunder'}.wav" for n in range(10)], {""}),
        (
            [f"sentence0{n}_{mood}.wav" for n in (1, 2) for mood in ("angry", "sad", "neutral")],
            {"sentence01", "sentence02"},
        ),
    ],
)
def test_classes_are_no_groups_and_said_with_the_pattern(names, groups):
    grouping = Grouping.of(names)
    assert {grouping.group(name) for name in names} == groups
    assert re.match(r"modality\.group_pattern='.*' makes groups of a part of the names", grouping.doubt)


def test_what_is_left_of_names_is_said():
    names = [f"trial{n}_{who}.csv" for n in (1, 2, 3) for who in ("anna", "ben")]
    doubt = Grouping.of(names, own=True).doubt
    assert "as anna of trial1_anna" in doubt
    told = Grouping.of(names, re.search("group_pattern='(.*)' makes", doubt)[1])
    assert len({told.group(name) for name in names}) == 6


def test_dates_and_known_words_are_cut_off():
    assert undated("x_2019-01-31_23-59-59_y") == "x_y"
    assert undated("72502014734") == "72502014734", "digits of a longer number"
    assert undated("200460_99999") == "200460_99999", "no month"
    assert bare("2019_walk_anna") == bare("anna_left_wrist") == bare("trial3_anna_climbing_stairs") == "anna"
    assert bare("session_12") == bare("v2") == bare("2020-01") == ""
    assert bare("P01R02") == "P01R02"
