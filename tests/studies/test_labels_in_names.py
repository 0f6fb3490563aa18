"""Labels that stand in names of files: taken by a pattern, and pointed out where data have none."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import TOY
from tuned_toys import FAST, Labelled, pretrain, tune, write_labelled

from seqssl import Record, Sample
from seqssl.errors import UserError
from seqssl.finetuning.facts import path_of, relabelled
from seqssl.studies.evening import evening
from seqssl.studies.looking import _patterns, labels_in_names

UNLABELLED = "test_labels_in_names:Unlabelled"


class Unlabelled(Labelled):
    """Rows whose label stands in the names of their files alone."""

    def records(self, source: Path, split: str) -> Iterator[Record]:
        for record in super().records(source, split):
            yield replace(record, label="")

    def load(self, row: Mapping[str, Any], rng: np.random.Generator | None) -> Sample:
        return replace(super().load(row, rng), label="")


class OnlyNames:
    """A corpus of which the names and groups are known."""

    def __init__(self, keys: list[str], groups: list[str], labels: list[str] | None = None) -> None:
        self.keys, self.groups = np.array(keys, dtype=object), np.array(groups, dtype=object)
        self.splits = np.array(["train"] * len(keys), dtype=object)
        self.labels = np.array(labels or [""] * len(keys), dtype=object)

    def relabelled(self, labels: list[str]) -> "OnlyNames":
        return OnlyNames([*self.keys], [*self.groups], labels)


def digits(form: str, *, takes: int = 5) -> OnlyNames:
    """Ten digits, each said by four people several times."""
    named = [
        (form.format(digit=digit, person=person, take=take), person)
        for digit in range(10)
        for person in ("ann", "bob", "cat", "dan")
        for take in range(takes)
    ]
    return OnlyNames([key for key, _ in named], [person for _, person in named])


@pytest.mark.parametrize(
    "form",
    [
        "{digit}_{person}_{take}.wav",
        "{person}/{digit}_{take}.wav",
        "{person}/{take}-{digit}.wav",
        "all/{person}/{digit}/x{take}.wav",
        "{person} {digit} {take}.flac#30",
        "clips/{person}.{take}.{digit}.WAV",
        "{person}{take}/{digit}.wav",
    ],
)
def test_a_part_of_the_name_is_pointed_out(form: str) -> None:
    corpus = digits(form)
    found = labels_in_names(corpus)  # type: ignore[arg-type]
    right = {str(digit): 20 for digit in range(10)}
    (pattern,) = [pattern for pattern, counts in found.items() if dict(counts) == right]
    labels = relabelled(corpus, pattern).labels  # type: ignore[arg-type]
    wanted = [re.sub(r"\D", "", str(digit)) for digit in range(10) for _ in range(20)]
    assert [*labels] == wanted
    people = [counts for counts in found.values() if {*counts} & {"ann", "bob"}]
    assert not people, "with groups held out, the group itself is no label"


def test_what_tells_nothing_apart_is_not() -> None:
    assert labels_in_names(digits("{digit}x{person}x{take}.wav")) == {}  # type: ignore[arg-type]
    numbered = OnlyNames([f"rec_{n:04}.wav" for n in range(200)], [f"g{n % 5}" for n in range(200)])
    assert labels_in_names(numbered) == {}  # type: ignore[arg-type]
    folders = OnlyNames(
        [f"{g}/{n}.wav" for g in "abc" for n in range(9)], [g for g in "abc" for _ in range(9)]
    )
    assert labels_in_names(folders) == {}  # type: ignore[arg-type]
    assert labels_in_names(OnlyNames([], [])) == {}  # type: ignore[arg-type]


LETTERS = st.characters(categories=["L", "N"], include_characters="+$^()[]{}?*|\\")
PARTS = st.text(LETTERS, min_size=1, max_size=4)


def of_width(width: int) -> st.SearchStrategy[list[list[str]]]:
    return st.lists(st.lists(PARTS, min_size=width, max_size=width), min_size=1, max_size=6)


@given(
    folders=st.integers(0, 2),
    mark=st.sampled_from("_- ."),
    names=st.integers(3, 6).flatmap(of_width),
)
def test_patterns_find_the_parts_whatever_they_are(folders: int, mark: str, names: list[list[str]]) -> None:
    paths = ["/".join([*parts[:folders], mark.join(parts[folders:])]) + ".wav" for parts in names]
    patterns = _patterns([PurePosixPath(path) for path in paths])
    found = [[(re.search(pattern, path) or [None, None])[1] for pattern in patterns] for path in paths]
    assert found == names


@pytest.mark.parametrize(
    ("given", "message"),
    [("file", "this one has 0"), ("([a-z]+)_(x)", "this one has 2"), ("([a-z", "no regular expression")],
)
def test_what_finds_no_label_is_refused(given: str, message: str) -> None:
    with pytest.raises(UserError, match=f"finetune.labels_from.*{message}"):
        relabelled(digits("{digit}_{person}_{take}.wav"), given)  # type: ignore[arg-type]


def test_the_place_within_a_file_is_no_part_of_its_path() -> None:
    assert path_of("a/b_c.wav#12.5") == path_of("a/b_c.wav/P01#2.5") == "a/b_c.wav"
    corpus = OnlyNames(["b_c.wav#d_1", "x.wav#y_1"], ["", ""])
    assert [*relabelled(corpus, "^([a-z]+)_").labels] == ["b", ""]  # type: ignore[arg-type]


def test_a_task_takes_them(tmp_path: Path) -> None:
    run = pretrain(
        write_labelled(tmp_path / "data"), tmp_path / "run", modality="test_labels_in_names:Unlabelled"
    )
    with pytest.raises(UserError, match=r"no labels at all. finetune.labels_from takes them from names"):
        tune(run, "classify", tmp_path / "none", "train.num_updates=2")
    tuned = tune(run, "classify", tmp_path / "t", r"finetune.labels_from=([a-d])_\d+\.npy$", *FAST)
    assert tuned.metrics["classify/accuracy"] > 0.5, "four labels, easily told apart"


def test_an_evening_points_them_out_and_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQSSL_CACHE", str(tmp_path / "cache"))
    source = write_labelled(tmp_path / "data", num_rows=36)
    small = [text for text in TOY if not text.startswith(("modality", "train.", "encoder.taps"))]
    small += [
        "size=tiny",
        "encoder.taps={contrastive: 1, output: 2}",
        "train.precision=float32",
        f"modality={UNLABELLED}",
    ]
    said: list[str] = []

    def spend(out: str, *more: str) -> dict[str, object]:
        said.clear()
        return evening(
            source, tmp_path / out, *small, *more, recipe="base/w2vbert", hours=1e-6, say=said.append
        )

    assert "evaluation" not in spend("without")
    hint = next(text for text in said if "names of files may hold labels" in text)
    pattern = re.search(r"finetune\.labels_from='(.+?)' tells 4 apart \(a, b, c, d\)", hint)
    assert pattern, hint
    assert hint.split(":")[0] in (tmp_path / "without" / "evening.html").read_text()
    assert "evaluation" in spend("with", f"finetune.labels_from={pattern[1]}")
    assert any(text.startswith("4 labels on 36 rows") for text in said)


def test_a_pattern_that_finds_nothing_is_refused() -> None:
    """Before, an evening with a mistyped pattern ran its whole time, and judged without labels."""
    corpus: Any = digits("{digit}_{person}_{take}.wav")
    for pattern in ("^([a-z]+)_", "recordings/([0-9]+)", "^(x)?"):
        with pytest.raises(UserError, match=r"a label in none of 200 paths, .* such as 0_ann_0\.wav"):
            relabelled(corpus, pattern)
    assert {*relabelled(corpus, "(7)_").labels} == {"", "7"}, "some rows may be without"


def test_words_are_pointed_out_before_numbers() -> None:
    """The activities of a wrist stood behind the years and the months in which it was worn."""
    verbs = ("walk", "rest", "climb")
    names = [
        (f"{verb}/acc-201{take % 2}-0{take}-{who}.csv", who)
        for verb in verbs for who in ("f1", "m1", "m2", "m3") for take in range(5)
    ]  # fmt: skip
    corpus: Any = OnlyNames([name for name, _ in names], [who for _, who in names])
    first, second = [*labels_in_names(corpus).items()][:2]
    assert first[0] == "^([^/]+)/" and {*first[1]} == {*verbs} and {*second[1]} == {"2010", "2011"}
