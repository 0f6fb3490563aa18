"""seqssl: self-supervised pre-training on sequences of any kind.

Everything public is importable from here; importing this module is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "seqssl.model.types": (
        "Batch",
        "Context",
        "Draws",
        "Features",
        "Frames",
        "LossTerm",
        "MaskedFrames",
        "Output",
        "Plan",
        "Quantized",
        "Segment",
        "Stat",
    ),
    "seqssl.data.augmenting": ("add_noise", "change_gain", "stretch_time"),
    "seqssl.data.describing": ("describe_series",),
    "seqssl.data.adapters": (
        "ModalityAdapter",
        "Record",
        "Rejected",
        "Rows",
        "Sample",
        "SampleSpec",
        "Suggestion",
    ),
    "seqssl.model.protocols": (
        "Block",
        "Condition",
        "FeatureEncoder",
        "HasStep",
        "Masking",
        "Mixer",
        "Objective",
        "Quantizer",
        "Targets",
        "Task",
    ),
    "seqssl.model.features": ("Conv1dStack", "Conv2dSubsampling", "PatchEncoder", "TokenEncoder"),
    "seqssl.model.quantizers": ("GumbelProductQuantizer", "LinearTarget", "RandomProjectionQuantizer"),
    "seqssl.model.fixed": ("FixedCodes",),
    "seqssl.model.targets": (
        "Both",
        "GivenCodes",
        "InputCodes",
        "LearnedCodes",
        "SymbolCodes",
        "TeacherCodes",
    ),
    "seqssl.model.masking": ("SpanMasking",),
    "seqssl.model.mixers": ("Attention",),
    "seqssl.model.blocks": ("ConformerBlock", "TransformerBlock"),
    "seqssl.model.encoder": ("ContextEncoder",),
    "seqssl.model.objectives": ("ContrastiveLoss", "DiversityLoss", "FeaturePenalty", "MaskedPredictionLoss"),
    "seqssl.model.invariance": ("InvarianceLoss",),
    "seqssl.model.pretraining": ("PretrainingModel",),
    "seqssl.model.joint": ("JointModel",),
    "seqssl.data.files": ("list_files",),
    "seqssl.errors": ("UserError",),
    "seqssl.config.schema": ("RunConfig",),
    "seqssl.training.tasks": ("PretrainTask", "held_out_metrics"),
    "seqssl.assembly": ("build_joint_model", "build_model"),
    "seqssl.planning.plan": ("load_recipe",),
    "seqssl.runs.folder": ("load",),
    "seqssl.runs.train": ("Run", "train"),
    "seqssl.evaluation.frozen": ("Encoder",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [*_HOME_OF]  # pyright: ignore
__version__ = "0.1.0"

if TYPE_CHECKING:
    from seqssl.assembly import build_joint_model as build_joint_model
    from seqssl.assembly import build_model as build_model
    from seqssl.config.schema import RunConfig as RunConfig
    from seqssl.data.adapters import ModalityAdapter as ModalityAdapter
    from seqssl.data.adapters import Record as Record
    from seqssl.data.adapters import Rejected as Rejected
    from seqssl.data.adapters import Rows as Rows
    from seqssl.data.adapters import Sample as Sample
    from seqssl.data.adapters import SampleSpec as SampleSpec
    from seqssl.data.adapters import Suggestion as Suggestion
    from seqssl.data.augmenting import add_noise as add_noise
    from seqssl.data.augmenting import change_gain as change_gain
    from seqssl.data.augmenting import stretch_time as stretch_time
    from seqssl.data.describing import describe_series as describe_series
    from seqssl.data.files import list_files as list_files
    from seqssl.errors import UserError as UserError
    from seqssl.evaluation.frozen import Encoder as Encoder
    from seqssl.model.blocks import ConformerBlock as ConformerBlock
    from seqssl.model.blocks import TransformerBlock as TransformerBlock
    from seqssl.model.encoder import ContextEncoder as ContextEncoder
    from seqssl.model.features import Conv1dStack as Conv1dStack
    from seqssl.model.features import Conv2dSubsampling as Conv2dSubsampling
    from seqssl.model.features import PatchEncoder as PatchEncoder
    from seqssl.model.features import TokenEncoder as TokenEncoder
    from seqssl.model.fixed import FixedCodes as FixedCodes
    from seqssl.model.invariance import InvarianceLoss as InvarianceLoss
    from seqssl.model.joint import JointModel as JointModel
    from seqssl.model.masking import SpanMasking as SpanMasking
    from seqssl.model.mixers import Attention as Attention
    from seqssl.model.objectives import ContrastiveLoss as ContrastiveLoss
    from seqssl.model.objectives import DiversityLoss as DiversityLoss
    from seqssl.model.objectives import FeaturePenalty as FeaturePenalty
    from seqssl.model.objectives import MaskedPredictionLoss as MaskedPredictionLoss
    from seqssl.model.pretraining import PretrainingModel as PretrainingModel
    from seqssl.model.protocols import Block as Block
    from seqssl.model.protocols import Condition as Condition
    from seqssl.model.protocols import FeatureEncoder as FeatureEncoder
    from seqssl.model.protocols import HasStep as HasStep
    from seqssl.model.protocols import Masking as Masking
    from seqssl.model.protocols import Mixer as Mixer
    from seqssl.model.protocols import Objective as Objective
    from seqssl.model.protocols import Quantizer as Quantizer
    from seqssl.model.protocols import Targets as Targets
    from seqssl.model.protocols import Task as Task
    from seqssl.model.quantizers import GumbelProductQuantizer as GumbelProductQuantizer
    from seqssl.model.quantizers import LinearTarget as LinearTarget
    from seqssl.model.quantizers import RandomProjectionQuantizer as RandomProjectionQuantizer
    from seqssl.model.targets import Both as Both
    from seqssl.model.targets import GivenCodes as GivenCodes
    from seqssl.model.targets import InputCodes as InputCodes
    from seqssl.model.targets import LearnedCodes as LearnedCodes
    from seqssl.model.targets import SymbolCodes as SymbolCodes
    from seqssl.model.targets import TeacherCodes as TeacherCodes
    from seqssl.model.types import Batch as Batch
    from seqssl.model.types import Context as Context
    from seqssl.model.types import Draws as Draws
    from seqssl.model.types import Features as Features
    from seqssl.model.types import Frames as Frames
    from seqssl.model.types import LossTerm as LossTerm
    from seqssl.model.types import MaskedFrames as MaskedFrames
    from seqssl.model.types import Output as Output
    from seqssl.model.types import Plan as Plan
    from seqssl.model.types import Quantized as Quantized
    from seqssl.model.types import Segment as Segment
    from seqssl.model.types import Stat as Stat
    from seqssl.planning.plan import load_recipe as load_recipe
    from seqssl.runs.folder import load as load
    from seqssl.runs.train import Run as Run
    from seqssl.runs.train import train as train
    from seqssl.training.tasks import PretrainTask as PretrainTask
    from seqssl.training.tasks import held_out_metrics as held_out_metrics


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'seqssl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
