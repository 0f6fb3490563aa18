"""Which frames the probes of training look at."""

import numpy as np
import pytest
import torch

from seqssl.training import probing
from seqssl.training.probing import _measured, _Seen


def test_frames_are_spread_over_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out rows come sorted by length. Here long ones tell labels the other way round in each group."""
    monkeypatch.setattr(probing, "MAX_FRAMES", 20)
    seen = _Seen()
    for length, sign in ((30, 1.0), (70, -1.0)):
        for unit in ("a", "b"):
            wanted = np.arange(length) % 2
            x = torch.zeros(length, 4)
            place = 0 if length == 30 else 2
            told = torch.from_numpy(2.0 * wanted - 1) * (sign if unit == "a" else 1.0)
            x[:, place] = told.float()
            seen.taps.setdefault("output", []).append(x)
            seen.wanted.append(wanted)
            seen.units.append(unit)
    found = _measured(seen, {"x": 0, "y": 1}, ["accuracy", "nearest", "rank"])
    assert found["probe/rank_output"] > 1.5, "the first frames lie in one direction"
    assert found["probe/accuracy_output"] < 0.6 and found["probe/nearest_output"] < 0.6
    monkeypatch.setattr(probing, "MAX_FRAMES", 10**6)
    whole = _measured(seen, {"x": 0, "y": 1}, ["accuracy", "nearest"])
    assert whole["probe/accuracy_output"] == pytest.approx(found["probe/accuracy_output"], abs=0.2)
