"""Contract checks for parts of your own: adapters, feature encoders, masking, quantizers, targets and others.

`check_quantizer(factory)` runs every check and raises with the list of those that failed;
`quantizer_checks()` gives them one by one, for `pytest.mark.parametrize("name, check", quantizer_checks())`.
`seqssl.testing.strategies` (Hypothesis) draws inputs, `seqssl.testing.mocks` holds parts that are broken on
purpose: each must fail the checks that it names.
"""

from seqssl.testing.adapters import adapter_checks, check_adapter
from seqssl.testing.blocks import block_checks, check_block
from seqssl.testing.features import check_feature_encoder, feature_encoder_checks
from seqssl.testing.harness import ChecksFailed
from seqssl.testing.masking import check_masking, masking_checks
from seqssl.testing.mixers import check_mixer, mixer_checks
from seqssl.testing.objectives import check_objective, objective_checks
from seqssl.testing.quantizers import check_quantizer, quantizer_checks
from seqssl.testing.targets import check_targets, targets_checks
from seqssl.testing.tasks import check_task, task_checks

__all__ = [
    "ChecksFailed",
    "adapter_checks",
    "block_checks",
    "check_adapter",
    "check_block",
    "check_feature_encoder",
    "check_masking",
    "check_mixer",
    "check_objective",
    "check_quantizer",
    "check_targets",
    "check_task",
    "feature_encoder_checks",
    "masking_checks",
    "mixer_checks",
    "objective_checks",
    "quantizer_checks",
    "targets_checks",
    "task_checks",
]
