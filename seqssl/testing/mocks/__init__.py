"""Parts that are broken on purpose, by the check functions that must find it: `QUANTIZERS`, `MASKINGS`, ...

Each is a class with one mistake; its `fails` holds the names of the checks that it must fail, and it must
pass all others.
"""

from seqssl.testing.mocks.adapters import InParts, NumberFiles
from seqssl.testing.mocks.annotations import AnnotatedNumbers
from seqssl.testing.mocks.blocks import BrokenBlock
from seqssl.testing.mocks.features import BrokenFeatures
from seqssl.testing.mocks.masking import BrokenMasking
from seqssl.testing.mocks.mixers import BrokenMixer
from seqssl.testing.mocks.objectives import BrokenObjective
from seqssl.testing.mocks.offers import Offering
from seqssl.testing.mocks.quantizers import BrokenQuantizer
from seqssl.testing.mocks.targets import BrokenTargets
from seqssl.testing.mocks.tasks import BrokenTask

QUANTIZERS = BrokenQuantizer.__subclasses__()
MASKINGS = BrokenMasking.__subclasses__()
MIXERS = BrokenMixer.__subclasses__()
BLOCKS = BrokenBlock.__subclasses__()
TARGETS = BrokenTargets.__subclasses__()
TASKS = BrokenTask.__subclasses__()
FEATURE_ENCODERS = BrokenFeatures.__subclasses__()
OBJECTIVES = BrokenObjective.__subclasses__()
ADAPTERS = [
    mock
    for sound in (NumberFiles, InParts, AnnotatedNumbers, Offering)
    for mock in sound.__subclasses__()
    if mock.fails
]
