from pathlib import Path

import numpy as np
import pytest
from weather_files import frame, write


@pytest.fixture
def folder(tmp_path) -> Path:
    for number, name in enumerate(("east", "west")):
        table = frame(120, seed=number)
        table.loc[40:45, "a"] = np.nan
        write(tmp_path / "raw" / f"{name}.csv", table.drop(index=range(70, 100)))
    return tmp_path / "raw"
