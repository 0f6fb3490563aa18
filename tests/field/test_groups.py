"""C: two speakers, persons or stations are never one because a column was not named or a folder is shared."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from field import prepare
from hypothesis import given
from hypothesis import strategies as st

from modalities.reading.groups import Grouping, known_split, split_of

HOURS = pd.date_range("2020-01-01", periods=240, freq="h")


def write_sound(path: Path, hz: int = 300, seconds: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hz * np.arange(int(16_000 * seconds)) / 16_000), 16_000)


LAYOUTS = {
    "VCTK": ([f"wav48/p22{s}/p22{s}_{n:03}.wav" for s in range(4) for n in range(3)], r"(p22\d)", False),
    "TIMIT": ([f"{t}/DR{s % 2 + 1}/FCJF{s}/SA{n}.WAV" for t, s in [("TRAIN", 0), ("TRAIN", 1), ("TEST", 2), ("TRAIN", 3)]
               for n in range(2)], r"(FCJF\d)", False),
    "LibriSpeech": ([f"train-clean-100/{s}/12{s}/{s}-12{s}-{n:04}.flac" for s in range(3) for n in range(3)], r"/(\d)/", False),
    "flat with prefixes": ([f"anna{s}_{n}.wav" for s in range(3) for n in range(4)], r"(anna\d)", False),
    "speakers in a shared folder": ([f"data/audio/spk{s}/{n}.wav" for s in range(3) for n in range(2)], r"(spk\d)", False),
    "mixed case splits": ([f"{t}/s{s}/{n}.wav" for t, s in [("Train", 1), ("DEV", 2), ("Test", 3)] for n in range(2)], r"(s\d)", False),
    "persons of a study": ([f"data/P{s:03}.csv" for s in range(4)], r"(P\d+)", True),
    "sessions of persons": ([f"P{s}/session{n}/acc.csv" for s in range(3) for n in range(2)], r"(P\d)", True),
    "days in a flat folder": ([f"P0{s}_day{n}.csv" for s in range(3) for n in range(2)], r"(P0\d)", True),
    "activities of subjects": ([f"{a}_{n}/sub_{s}.csv" for n, a in enumerate(("dws", "jog", "wlk")) for s in range(1, 4)], r"(sub_\d)", True),
    "subjects in two folders": ([f"{part}/subject10{s}.dat" for part in ("Protocol", "Optional") for s in range(1, 4)], r"(subject\d+)", True),
    "a subject within a name": ([f"{a}_subject{s}_{n}.csv" for a in ("go", "rest") for s in range(1, 4) for n in range(2)], r"(subject\d)", True),
    "activities of numbers": ([f"{n}.{a}/100{s}_{a[0]}_1.csv" for n, a in enumerate(("Stand", "Sit", "Stair-up")) for s in range(1, 4)], r"/(\d+)_", True),
    "activities of names": ([f"{a}/{who}.csv" for a in ("walking", "sleeping") for who in ("anna", "ben")], r"/(\w+)\.", True),
    "activities above persons": ([f"{a}/{who}/{n}.csv" for a in ("walk", "run") for who in ("anna", "ben") for n in range(2)], r"/(\w+)/", True),
    "words of Speech Commands": ([f"{word}/{s}a7c2a8d_nohash_{n}.wav" for word in ("bed", "cat") for s in range(3) for n in range(2)], r"/(\w{8})_", False),
    "digits of FSDD": ([f"recordings/{d}_{who}_{n}.wav" for d in range(4) for who in ("jackson", "theo") for n in range(2)], r"_([a-z]+)_", False),
    "persons from 1 on": ([f"{s}_{word}_{n}.wav" for s in range(1, 4) for word in ("yes", "no") for n in range(2)], r"^(\d)", False),
    "stations by year": ([f"{year}/0377209999{s}.csv" for year in (2019, 2020) for s in range(3)], r"/(\d{11})", True),
    "sensors of persons": ([f"{sensor}/{who}.csv" for sensor in ("acc", "gyro") for who in ("anna", "ben")], r"/(\w+)\.", True),
    "months of years": ([f"{year}/0{month}.csv" for year in (2019, 2020) for month in range(1, 4)], r"^(\d+)", True),
    "counted files of persons": ([f"{who}/{n}.wav" for who in ("anna", "ben") for n in range(3)], r"^(\w+)", False),
    "sentences of persons": ([f"{who}/{text}.wav" for who in ("anna", "ben") for text in ("hello", "thanks")], r"^(\w+)", False),
    "files of persons' sensors": ([f"{who}/{sensor}.csv" for who in ("anna", "ben") for sensor in ("acc", "gyro")], r"^(\w+)", True),
    "utterances of sessions": ([f"session{s}/utt00{n}.wav" for s in range(1, 4) for n in range(1, 3)], r"^(\w+)", False),
    "recordings of days": ([f"2023-05-0{s}/rec_{n}.wav" for s in range(1, 4) for n in range(1, 3)], r"^([\d-]+)", True),
    "sensors' places by day": ([f"2023-05-0{s}/{place}.csv" for s in (1, 2) for place in ("wrist", "left_hip")], r"^([\d-]+)", True),
    "names of months by year": ([f"{year}/{month}.csv" for year in (2019, 2020) for month in ("jan", "feb")], r"^(\d+)", True),
    "persons of sessions": ([f"session{s}/P0{n}.csv" for s in (1, 2) for n in range(1, 4)], r"/(\w+)\.", True),
    "walks of coded persons": ([f"P0{s}_walk/{side}.csv" for s in range(1, 4) for side in ("left", "right")], r"^(\w+)", True),
    "walks of names": ([f"{who}_walk/{n}/acc.csv" for who in ("anna", "ben") for n in (1, 2)], r"^(\w+)", True),
    "activities with their manner": ([f"{act}/{who}.csv" for act in ("walk_fast", "sit_down") for who in ("anna", "ben")], r"/(\w+)\.", True),
    "speakers of a conversation": (["conv01/speaker1.wav", "conv01/speaker2.wav", "conv02/speaker1.wav"], r"^(\w+)", False),
    "persons of a house": ([f"house{h}/day{d}/person{p}.csv" for h in (3, 4) for d in (1, 2) for p in (1, 2)], r"^(\w+)", True),
    "speakers of sessions": ([f"session{s}/speaker{n}.wav" for s in (1, 2, 3) for n in (1, 2)], r"/(\w+)\.", False),
    "speakers of tasks": ([f"{task}/speaker{n}.wav" for task in ("task1", "task2") for n in (1, 2)], r"/(\w+)\.", False),
    "speakers of emotions": ([f"{mood}/speaker{n}.wav" for mood in ("angry", "calm") for n in (1, 2)], r"/(\w+)\.", False),
    "speakers of meetings": ([f"meeting{m}/speaker1{n}.wav" for m in (1, 2) for n in (1, 2)], r"/(\w+)\.", False),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_corpora(name: str) -> None:
    import re

    names, pattern, own = LAYOUTS[name]
    grouping = Grouping.of(names, own=own)
    groups = [grouping.group(path) or (Path(path).stem if own else "") for path in names]
    wanted = [re.search(pattern, path)[1] for path in names]  # type: ignore[index]
    assert groups == wanted
    told = Grouping.of(names, pattern)
    assert [told.group(path) for path in names] == wanted


def test_files_of_several_folders_that_begin_alike_are_said(tmp_path: Path) -> None:
    for word in ("bed", "cat"):
        for number, who in enumerate(("anna", "ben", "cleo")):
            write_sound(tmp_path / "in" / word / f"{who}_0.wav", 200 + 50 * number)
    found = prepare("speech", tmp_path / "in")
    setting = "modality.group_pattern='([^/_]+)_[^/]*$'"
    assert f"notice: {setting}" in found.said and "anna_ is in several of them (bed, cat)" in found.said
    told = prepare("speech", tmp_path / "in", setting)
    assert {row["group"] for row in told.rows} == {"anna", "ben", "cleo"} and setting not in told.said
    names, _, own = LAYOUTS["VCTK"]
    assert not Grouping.of(names, own=own).doubt


@given(
    st.lists(st.text("abcxyz019", min_size=1, max_size=6), min_size=2, max_size=6, unique=True),
    st.integers(1, 4),
)
def test_folders_of_persons_are_groups_under_any_container(persons: list[str], depth: int) -> None:
    if any(split_of(f"{person}/x") for person in persons):
        return
    containers = "/".join(["data", "wav48", "clips", "raw"][:depth])
    names = [
        f"{split}/{containers}/{person}/{n}.wav"
        for person in persons
        for split in ("train", "test")
        for n in range(2)
    ]
    grouping = Grouping.of(names)
    assert [grouping.group(name) for name in names] == [name.split("/")[-2] for name in names]
    assert {split_of(name) for name in names} == {"train", "test"}


@pytest.mark.parametrize("word", ["Val", "VALID", "validation", "dev", "Dev", " val "])
def test_words_for_splits(word: str) -> None:
    assert known_split(word) == "valid" and known_split("fold3") == "fold3"


def test_speakers_are_held_out_whole_and_transcripts_are_found_in_any_case(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for split, region, speaker in [
        ("TRAIN", "DR1", "FCJF0"),
        ("TRAIN", "DR2", "MABW0"),
        ("TRAIN", "DR2", "FDAW0"),
        ("TEST", "DR1", "MDAB0"),
    ]:
        for number in range(2):
            write_sound(source / split / region / speaker / f"SA{number}.WAV")
            text = f"0 46797 She had your dark suit {number}\n"
            (source / split / region / speaker / f"SA{number}.TXT").write_text(text)
    found = prepare("speech", source)
    assert (
        found.split("test") == {"MDAB0"} and len(found.split("valid")) == 1 and len(found.split("train")) == 2
    )
    assert all(row["label"].startswith("She had your dark suit") for row in found.rows)


def test_one_group_for_all_is_said(tmp_path: Path) -> None:
    for number in range(6):
        write_sound(tmp_path / "in" / "anna" / f"{number}.wav", 200 + 50 * number)
    found = prepare("speech", tmp_path / "in")
    assert "notice: all rows are of one group, 'anna'" in found.said and "group_pattern" in found.said


def stations(folder: Path, *, stacked: bool = False, column: str | None = "station") -> Path:
    folder.mkdir()
    parts = [
        pd.DataFrame(
            {
                column or "drop": name,
                "time": HOURS,
                "temp": base + np.arange(240) % 24,
                "rain": 0.1 * (np.arange(240) % 7),
            }
        )
        for name, base in (("NORTH", -10.0), ("MID", 10.0), ("SOUTH", 25.0))
    ]
    whole = pd.concat(parts, ignore_index=True)
    whole = whole if stacked else whole.sort_values("time", kind="stable")
    whole.drop(columns=[] if column else ["drop"]).to_csv(folder / "all.csv", index=False)
    return folder


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("column", ["station", "Station_ID", "site", "sensor", "unique_id"])
def test_stations_in_one_table_are_as_many_series(tmp_path: Path, column: str, stacked: bool) -> None:
    found = prepare(
        "weather", stations(tmp_path / "in", stacked=stacked, column=column), "modality.columns=[temp,rain]"
    )
    assert {row["group"] for row in found.rows} == {"NORTH", "MID", "SOUTH"}
    assert f"column '{column}' tells series apart" in found.said
    lowest = {row["group"]: min(value[0] for value in row["values"]) for row in found.rows}
    assert lowest == {"NORTH": -10.0, "MID": 10.0, "SOUTH": 25.0}


@pytest.mark.parametrize("stacked", [False, True])
def test_a_column_with_an_unusual_name_is_named_in_the_refusal(tmp_path: Path, stacked: bool) -> None:
    source = stations(tmp_path / "in", stacked=stacked, column="wo")
    found = prepare("weather", source, "modality.columns=[temp,rain]")
    assert found.code == 2 and "modality.id_column=wo" in found.message
    told = prepare("weather", source, "modality.columns=[temp,rain]", "modality.id_column=wo")
    assert {row["group"] for row in told.rows} == {"NORTH", "MID", "SOUTH"}


def test_stacked_series_without_any_column_are_refused(tmp_path: Path) -> None:
    found = prepare(
        "weather", stations(tmp_path / "in", stacked=True, column=None), "modality.columns=[temp,rain]"
    )
    assert found.code == 2 and "several series are in one table" in found.message


def test_a_coarse_clock_is_no_second_series(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    times = pd.date_range("2020-01-01", periods=7200, freq="30s").floor("min")
    pd.DataFrame({"time": times, "temp": np.arange(7200) % 300 / 10}).to_csv(folder / "s.csv", index=False)
    found = prepare("weather", folder, "modality.columns=[temp]")
    assert found.code == 0 and "of the times are repeated: their values are averaged" in found.said


def test_a_constant_station_column_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "berlin"
    folder.mkdir(parents=True)
    pd.DataFrame({"station": 44, "time": HOURS, "temp": np.arange(240) % 24}).to_csv(
        folder / "s.csv", index=False
    )
    found = prepare("weather", tmp_path / "in", "modality.columns=[temp]")
    assert {row["group"] for row in found.rows} == {"berlin"}


def test_the_other_strand_of_a_chromosome_is_no_other_chromosome(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    titles = ["chr1:1-400", "chr1:c800-401", "chr1:801-1200(-)", "chr2:1-400", "chr2:c800-401", "chr3:1-400"]
    text = "".join(f">{title}\n{''.join(rng.choice([*'ACGT'], 400))}\n" for title in titles)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "g.fa").write_text(text)
    found = prepare("dna", tmp_path / "in", "valid_share=0.3")
    assert {row["group"] for row in found.rows} == {"chr1", "chr2", "chr3"} and len(found.rows) == 6
    assert not found.split("valid") & found.split("train")


def test_unequal_subjects_are_held_out_by_their_amount(tmp_path: Path) -> None:
    for number in range(8):
        for part in range(16 if number == 0 else 1):
            write_sound(tmp_path / "in" / f"s{number}" / f"{part}.wav", seconds=1.0)
    found = prepare("speech", tmp_path / "in", "valid_share=0.3")
    held = sum(row["length"] for row in found.rows if row["split"] == "valid") / sum(
        row["length"] for row in found.rows
    )
    assert 0.25 < held < 0.35 and "s0" not in found.split("valid")


def test_a_source_of_one_split_is_trained_on(tmp_path: Path) -> None:
    for speaker in (84, 174, 251):
        for number in range(2):
            write_sound(tmp_path / "in" / "dev-clean" / str(speaker) / f"{speaker}-1-{number}.flac")
    found = prepare("speech", tmp_path / "in")
    assert len(found.split("train")) == 2 and len(found.split("valid")) == 1


def test_transcripts_and_tables_in_other_folders(tmp_path: Path) -> None:
    for number in range(3):
        write_sound(tmp_path / "vctk" / "wav48" / f"p{number}" / f"p{number}_001_mic1.flac")
        (tmp_path / "vctk" / "txt" / f"p{number}").mkdir(parents=True)
        (tmp_path / "vctk" / "txt" / f"p{number}" / f"p{number}_001.txt").write_text(f"words {number}\n")
    assert {row["label"] for row in prepare("speech", tmp_path / "vctk").rows} == {
        "words 0",
        "words 1",
        "words 2",
    }
    for split in ("train", "test"):
        for number in range(2):
            write_sound(tmp_path / "hf" / split / f"{number}.wav")
        lines = [f"{number}.wav,{split} {number}" for number in range(2)]
        (tmp_path / "hf" / split / "metadata.csv").write_text(
            "\n".join(["file_name,transcription", *lines]) + "\n"
        )
    write_sound(tmp_path / "hf" / "train" / "not-named.wav")
    found = prepare("speech", tmp_path / "hf")
    assert {row["label"] for row in found.rows} == {"train 0", "train 1", "test 0", "test 1"}
    assert {row["split"] for row in found.rows} == {"train", "valid", "test"}
    assert found.rejected == {"train/not-named.wav": "metadata.csv does not name it"}
