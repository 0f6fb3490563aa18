"""What a plan for many GPUs takes for granted. Imported by the command line, so it imports little."""

from dataclasses import asdict, dataclass
from typing import Annotated, get_args, get_type_hints

from seqssl.errors import UserError
from seqssl.model.bounds import POSITIVE, Bound


@dataclass(frozen=True)
class Assumptions:
    """What a plan for GPUs takes for granted; each is a setting of `seqssl plan` of the same name."""

    utilization: Annotated[float, Bound(above=0, at_most=1)] = 0.35  # of the vendor's peak, in computing
    link: Annotated[float, POSITIVE] | None = None  # GB/s of a device within its machine; None: the vendor's
    bandwidth: Annotated[float, POSITIVE] = 50.0  # GB/s of a machine to others, in each direction
    overlap: Annotated[float, Bound(at_least=0, at_most=1)] = 0.5
    devices_per_machine: Annotated[int, POSITIVE] = 8

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        for name, value in asdict(self).items():
            marks = [mark for part in (hints[name], *get_args(hints[name])) for mark in get_args(part)]
            bounds = [mark for mark in marks if isinstance(mark, Bound)]
            if value is not None and (remedy := bounds[0].remedy(value, {})):
                raise UserError(f"{name} = {value:g}: {remedy}")
