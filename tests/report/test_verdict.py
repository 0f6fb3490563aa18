"""Whether an evening was worth it: yes is said where it is shown, and nowhere else."""

from typing import Any

import pytest

from seqssl.report.evening import verdict


def halves(**changed: Any) -> dict[str, Any]:
    found = {
        "trained": {"found": 0.5, "rank": 9.0}, "random": {"found": 0.2, "rank": 3.0}, "rows": 40,
        "held_out": True, "low": 0.1, "high": 0.4, "num_units": 6, "units": "groups",
    }  # fmt: skip
    return {"halted": "", "halves": {**found, **changed}}


@pytest.mark.parametrize(
    ("changed", "end", "is_good"),
    [
        ({}, "interval +10 to +40).", True),
        ({"low": -0.1}, "interval -10 to +40).", False),
        ({"num_units": 5}, "5 groups are too few to be sure.", False),
        ({"num_units": 5, "units": "rows"}, "5 rows are too few to be sure.", False),
        ({"held_out": False}, "what this is worth for others.", False),
    ],
)
def test_without_labels(changed: dict[str, Any], end: str, is_good: bool) -> None:
    sentence, found = verdict(halves(**changed))
    assert sentence.endswith(end) and found == is_good


@pytest.mark.parametrize("is_shown", [True, False])
def test_with_labels_it_is_the_rulers(is_shown: bool) -> None:
    worth = {"sentence": "So it is.", "shown": is_shown, "at": [{"low": 0.1}]}
    assert verdict({"halted": "", "evaluation": {"worth": worth}}) == ("So it is.", is_shown)
