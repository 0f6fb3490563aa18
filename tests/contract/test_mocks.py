"""The checks themselves are tested: a sound part passes all, a broken one fails those that it names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seqssl import Batch, Features, testing
from seqssl.testing import mocks
from seqssl.testing.mocks.adapters import InParts, NumberFiles
from seqssl.testing.mocks.annotations import AnnotatedNumbers
from seqssl.testing.mocks.blocks import BrokenBlock
from seqssl.testing.mocks.features import SPEC, BrokenFeatures
from seqssl.testing.mocks.masking import BrokenMasking
from seqssl.testing.mocks.mixers import BrokenMixer
from seqssl.testing.mocks.objectives import BrokenObjective
from seqssl.testing.mocks.quantizers import BrokenQuantizer
from seqssl.testing.mocks.targets import INPUT_DIM, BrokenTargets
from seqssl.testing.mocks.tasks import BrokenTask


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Mocks may draw from torch's global generator; that is what some of them are for."""
    torch.manual_seed(0)


KINDS = {
    testing.check_quantizer: (BrokenQuantizer, mocks.QUANTIZERS),
    testing.check_masking: (BrokenMasking, mocks.MASKINGS),
    testing.check_mixer: (BrokenMixer, mocks.MIXERS),
    testing.check_block: (BrokenBlock, mocks.BLOCKS),
    testing.check_objective: (BrokenObjective, mocks.OBJECTIVES),
}
CASES = [(check, mock) for check, (_, broken) in KINDS.items() for mock in broken]


def failures(check: Any, *arguments: Any) -> dict[str, str]:
    try:
        check(*arguments)
    except testing.ChecksFailed as error:
        return error.failures
    return {}


@pytest.mark.parametrize(("check", "sound"), [(check, sound) for check, (sound, _) in KINDS.items()])
def test_sound_parts_pass(check: Any, sound: Any) -> None:
    check(sound)


@pytest.mark.parametrize(("check", "mock"), CASES, ids=lambda value: value.__name__)
def test_mocks_fail_exactly_what_they_name(check: Any, mock: Any) -> None:
    assert mock.fails
    assert failures(check, mock).keys() == mock.fails


def test_sound_feature_encoder_passes() -> None:
    testing.check_feature_encoder(BrokenFeatures(), SPEC)


@pytest.mark.parametrize("mock", mocks.FEATURE_ENCODERS)
def test_feature_encoders_fail_exactly_what_they_name(mock: Any) -> None:
    assert failures(testing.check_feature_encoder, mock(), SPEC).keys() == mock.fails


LENGTHS = torch.tensor([9, 4, 7])


def frames_of_a_batch() -> tuple[Batch, Features]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 9, 2, generator=generator)
    return Batch(inputs, LENGTHS), Features(torch.randn(3, 9, INPUT_DIM, generator=generator), LENGTHS)


def batches() -> list[Batch]:
    batch = frames_of_a_batch()[0]
    return [batch, Batch(batch.inputs[:1], batch.lengths[:1])]


def test_sound_targets_and_tasks_pass() -> None:
    testing.check_targets(BrokenTargets, *frames_of_a_batch())
    testing.check_task(BrokenTask, batches())


@pytest.mark.parametrize("mock", mocks.TARGETS)
def test_targets_fail_exactly_what_they_name(mock: Any) -> None:
    assert mock.fails
    assert failures(testing.check_targets, mock, *frames_of_a_batch()).keys() == mock.fails


@pytest.mark.parametrize("mock", mocks.TASKS)
def test_tasks_fail_exactly_what_they_name(mock: Any) -> None:
    assert mock.fails
    assert failures(testing.check_task, mock, batches()).keys() == mock.fails


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, size in (("2", 9), ("1", 40), ("3", 1)):
        np.savetxt(tmp_path / f"{name}.txt", rng.standard_normal(size))
    return tmp_path


def test_sound_adapter_passes(numbers: Path) -> None:
    (numbers / "empty.txt").touch()
    (numbers / "words.txt").write_text("not a number")
    testing.check_adapter(NumberFiles(), numbers)
    testing.check_adapter(InParts(), numbers)
    testing.check_adapter(AnnotatedNumbers(), numbers)


@pytest.mark.parametrize("mock", mocks.ADAPTERS)
def test_adapters_fail_exactly_what_they_name(mock: Any, numbers: Path) -> None:
    found = failures(testing.check_adapter, mock(), numbers)
    assert {
        name for name in found if not name.startswith("feature_encoder_") or name in mock.fails
    } == mock.fails


def test_an_empty_source_is_reported(tmp_path: Path) -> None:
    assert "source_has_records" in failures(testing.check_adapter, NumberFiles(), tmp_path)


def test_the_message_lists_every_failure() -> None:
    with pytest.raises(AssertionError, match=r"fails \d+ of \d+ checks:\n  codes_are_in_range: codes reach"):
        testing.check_quantizer(mocks.QUANTIZERS[4])


def test_one_cause_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(testing.ChecksFailed) as raised:
        testing.check_adapter(NumberFiles(), tmp_path / "nowhere")
    lines = str(raised.value).splitlines()[1:]
    assert len(raised.value.failures) > 5 and len(lines) == 2
    assert len({line.partition(": ")[2] for line in lines}) == len(lines)
    assert any(" more: " in line for line in lines)
