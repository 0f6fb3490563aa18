import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from tuned_toys import pretrain, write_labelled


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("labelled") / "waves")


@pytest.fixture(scope="session")
def run(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(labelled, tmp_path_factory.mktemp("run") / "run")
