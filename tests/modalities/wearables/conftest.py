from pathlib import Path

import numpy as np
import pytest
from wearables_files import clock, frame, truth, turning, write


@pytest.fixture
def folder(tmp_path) -> Path:
    raw = tmp_path / "raw"
    for number, subject in enumerate(["anna", "ben"]):
        write(raw / subject / "walk.csv", frame(values=truth(clock(), number), gyroscope=True))
    holes = frame(gyroscope=True)
    holes.loc[300:500, ["x", "gyro_y"]] = np.nan
    write(raw / "cleo" / "holes.csv", holes)
    times = clock(31)
    stack = np.stack([np.concatenate([truth(times, n), turning(times)], axis=1) for n in range(3)])
    np.savez(raw / "stack.npz", X=stack, pid=[7, 8, 8], y=["sit", "run", "sit"])
    return raw
