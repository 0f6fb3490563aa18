"""Labels that names of files give."""

import pytest

from seqssl.finetuning.facts import name_in_group


@pytest.mark.parametrize(
    ("key", "group", "name"),
    [
        ("spk1/yes.wav", "", "yes"),
        ("spk1/yes.wav", "spk1", "yes"),
        ("train/spk1/yes.wav", "spk1", "yes"),
        ("train/spk1/digits/7.wav", "spk1", "digits/7"),
        ("P01/walk.csv#0", "P01", "walk"),
        ("P01/walk.csv#2.5", "P01", "walk"),
        ("data/walk.csv/S1#30", "S1", "walk"),
        ("spk1/take.2.wav", "spk1", "take.2"),
        ("spk1/no. 5", "spk1", "no"),
        ("yes.wav", "", ""),
    ],
)
def test_the_name_of_a_row_is_that_of_its_file(key: str, group: str, name: str) -> None:
    assert name_in_group(key, group) == name
