"""The work of one step, measured on fake tensors: shapes go through the model, values do not.

Whatever the parts are, other people's among them, they are run and counted: nothing is guessed from
configuration keys. A part that looks at values cannot be run without them; then one real row is run instead.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch._functorch import config as functorch_config
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    conv_flop_count,
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
    shape_wrapper,
)

from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import Fits
from seqssl.model.types import Batch, Draws, Plan

aten, DEVICE = torch.ops.aten, torch.ops.prim.device.default
TEMPERATURE = 1.0  # any value will do; with None, no noise would be drawn
Shape = Sequence[int]
Op = Callable[..., Tensor]
Keywords = dict[str, Tensor | Generator | float | None]


@dataclass(frozen=True)
class Share:
    """What one part of the model does in a forward pass."""

    flops: float = 0.0  # 2 per multiply-add of matrix products and convolutions
    saved: int = 0  # bytes that autograd keeps for the backward pass
    inputs: int = 0  # bytes of the part's first argument
    copies: int = 0  # bytes of its weights' copies in bfloat16, which `saved` leaves out

    def __add__(self, other: "Share") -> "Share":
        return Share(
            self.flops + other.flops,
            self.saved + other.saved,
            self.inputs + other.inputs,
            self.copies + other.copies,
        )

    def of_rows(self, number: int) -> "Share":
        """The share of so many rows, where this is that of one; copies of weights are there once."""
        return Share(self.flops * number, self.saved * number, self.inputs * number, self.copies)


@dataclass(frozen=True)
class Work:
    """What a micro-batch takes."""

    parts: Mapping[str, Share]  # of the parts asked for, by name
    forward: Share  # all of the model
    flops: float  # forward and backward
    is_real: bool = False  # one row was run on real tensors, because a part looks at values


def measure(
    build: Callable[[str], PretrainingModel],
    batch: Batch,
    parts_of: Callable[[PretrainingModel], Mapping[str, nn.Module]],
    *,
    bfloat16: bool,
) -> Work:
    """Run a training step of a full micro-batch without its values.

    `build` makes the model on a device, "meta" or "cpu". `parts_of` names the parts to count apart; a part
    within another counts for the outer one.
    """
    model, draws = unfitted(build("meta")).train(), Draws((0,), TEMPERATURE)
    plan = model.plan(batch, draws)  # the number of masked frames is a shape, so masks are really drawn
    try:
        # Reading the memory of a fake tensor, as `numpy()` does, must be an error, not garbage.
        strict = functorch_config.patch(fake_tensor_allow_unsafe_data_ptr_access=False)
        with strict, FakeTensorMode(allow_non_fake_inputs=True), _Undrawn():  # type: ignore[no-untyped-call]
            model.to_empty(device="cpu")  # fake here: nothing is allocated
            return _step(model, batch, plan, draws, parts_of(model), bfloat16=bfloat16)
    except Exception:  # values asked for raise errors of many kinds; other errors are raised again below
        model, row, rows = unfitted(build("cpu")).train(), _first_row(batch), len(batch.lengths)
        work = _step(model, row, model.plan(row, draws), draws, parts_of(model), bfloat16=bfloat16)
    parts = {name: part.of_rows(rows) for name, part in work.parts.items()}
    return Work(parts, work.forward.of_rows(rows), work.flops * rows, is_real=True)


def unfitted(model: PretrainingModel) -> PretrainingModel:
    """The model, whose targets do without the data that they are to be fitted to."""
    if isinstance(model.targets, Fits):
        model.targets.pretend()
    return model


def _step(
    model: PretrainingModel,
    batch: Batch,
    plan: Plan,
    draws: Draws,
    parts: Mapping[str, nn.Module],
    *,
    bfloat16: bool,
) -> Work:
    """One step, forward and backward, with all of it counted."""
    assert plan.frames is not None
    meter = _Meter({_address(p) for p in model.parameters()})
    with meter, meter.watching(parts):
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)
        with saved_tensors_hooks(meter.keep, lambda x: x), autocast:
            output = model(batch, plan.frames, temperature=TEMPERATURE, generator=draws.generator())
        forward = meter.reading()
        torch.stack([*output.terms.values()]).sum().backward()
    return Work(meter.parts, forward, meter.flops)


def _first_row(batch: Batch) -> Batch:
    """The micro-batch of the first row alone."""

    def first(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[:1]

    return replace(
        batch,
        inputs=batch.inputs[:1],
        lengths=batch.lengths[:1],
        observed=first(batch.observed),
        times=first(batch.times),
        codes=first(batch.codes),
        groups=first(batch.groups),
        labels=None if batch.labels is None else batch.labels[:1],
        segments=None if batch.segments is None else batch.segments[:1],
    )


class _Meter(TorchDispatchMode):
    """Counts what is computed and kept, for all and for each part.

    Torch's own FlopCounterMode would do for the FLOPs, but follows modules in a way that fails on weights
    that are computed under `torch.inference_mode`: those of a teacher, for one.
    """

    def __init__(self, weights: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0.0
        self.parts: dict[str, Share] = {}
        self.copies: dict[int, int] = {}  # bytes of weights in another precision, by address
        self._weights = weights
        self._kept: dict[int, Tensor] = {}  # kept alive, so that no address is used again
        self._saved = 0
        self._inside, self._before = "", Share()

    def __torch_dispatch__(
        self, func: Op, types: Sequence[type], args: tuple[Tensor, ...] = (), kwargs: Keywords | None = None
    ) -> Tensor:
        """Run any operation, count its FLOPs, and note the casts of weights."""
        kwargs, packet = kwargs or {}, getattr(func, "_overloadpacket", None)
        if packet not in FORMULAS and hasattr(func, "decompose") and func is not DEVICE:
            with self:  # an operation that is made of others is counted by them
                parts: Tensor = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        if packet in FORMULAS:
            self.flops += FORMULAS[packet](*args, **kwargs, out_val=result)
        # Copies of weights are there once, however large the batch.
        if func is aten._to_copy.default and _address(args[0]) in self._weights:
            self.copies[_address(result)] = result.nbytes
            self._kept.setdefault(_address(result), result)
        return result

    def keep(self, x: Tensor) -> Tensor:
        """Note that autograd keeps a tensor; views of the same memory count once, weights never."""
        address = _address(x)
        if address not in self._kept and address not in self._weights and address not in self.copies:
            self._kept[address] = x
            self._saved += x.untyped_storage().nbytes()
        return x

    def reading(self) -> Share:
        """The counts so far."""
        return Share(self.flops, self._saved, copies=sum(self.copies.values()))

    @contextmanager
    def watching(self, parts: Mapping[str, nn.Module]) -> Iterator[None]:
        """A context that counts the share of each part; a list of modules is the sum of its members."""
        handles = []
        for name, part in parts.items():
            # A list of modules is never called, so hooks on it would not run.
            for module in part.children() if isinstance(part, nn.ModuleList | nn.ModuleDict) else [part]:
                handles += [
                    module.register_forward_pre_hook(partial(self._enter, name)),
                    module.register_forward_hook(partial(self._leave, name)),
                ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """A part begins, unless it is within another one."""
        if not self._inside:
            self._inside, self._before = name, self.reading()

    def _leave(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """A part ends: what came since its beginning is its share."""
        if self._inside == name:
            now, before, first = self.reading(), self._before, next(iter(inputs), None)
            size = first.nbytes if isinstance(first, Tensor) else 0
            own = Share(now.flops - before.flops, now.saved - before.saved, size, now.copies - before.copies)
            self.parts[name] = self.parts.get(name, Share()) + own
            self._inside = ""


class _Undrawn(TorchDispatchMode):
    """Takes generators away from draws: torch has no fake ones, and fake tensors have no values to draw."""

    def __torch_dispatch__(
        self, func: Op, types: Sequence[type], args: tuple[Tensor, ...] = (), kwargs: Keywords | None = None
    ) -> Tensor:
        """Run any operation, without a generator."""
        kwargs = dict(kwargs or {})
        if "generator" in kwargs:
            kwargs["generator"] = None
        return func(*args, **kwargs)


def _address(x: Tensor) -> int:
    """A number that two views of the same memory share."""
    return int(x.untyped_storage()._cdata)  # of the storage object: a fake tensor has no data to point to


def _conv_backward(
    grad_out: Shape, x: Shape, w: Shape, bias: Shape, stride: Shape, padding: Shape, dilation: Shape,
    transposed: bool, output_padding: Shape, groups: int, asked: Sequence[bool], out_shape: Shape = (),
) -> int:  # fmt: skip
    """FLOPs: those of the forward pass for each gradient asked for. Torch's own formula forgets groups."""
    return sum(asked[:2]) * conv_flop_count(list(x), list(w), list(grad_out), transposed=transposed)


def _attention(q: Shape, k: Shape, v: Shape, *rest: float, out_shape: Shape = (), **more: float) -> int:
    """FLOPs of the fused attention of CPUs, which torch does not count."""
    return int(sdpa_flop_count(q, k, v))


def _attention_backward(
    grad_out: Shape, q: Shape, k: Shape, v: Shape, *rest: float, out_shape: Shape = (), **more: float
) -> int:
    """FLOPs of the backward pass of that attention."""
    return int(sdpa_backward_flop_count(grad_out, q, k, v))


FORMULAS = flop_registry | {
    aten.convolution_backward: shape_wrapper(_conv_backward),
    aten._scaled_dot_product_flash_attention_for_cpu: shape_wrapper(_attention),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: shape_wrapper(_attention_backward),
}
