"""A model whose weights are divided among ranks. Imported where it is asked for: FSDP2 takes a second."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from seqssl.model.encoder import ContextEncoder
from seqssl.training.checkpoint import OptimizerState, state_of, weights_of
from seqssl.training.parallel import Replicated, agree, exchanging, share_statistics
from seqssl.training.precision import maps_of
from seqssl.training.watch import Watch

BOTH = ("copy", "shard")  # the dimensions of a mesh of ranks that hold copies of parts


class Sharded(Replicated):
    """Each weight, gradient and moment is divided among ranks (torch's FSDP2, `fully_shard`).

    `shards`: among how many; with fewer than there are ranks, groups of so many hold copies of one another
    (HSDP). A block is gathered when it computes, and what is not a block for the whole update.

    What is divided stays in float32: it is what the optimizer changes. Where matrix products are in bfloat16,
    the maps of blocks are gathered in that: autocast would round them to it, and half as much is sent and
    kept. Gradients are added up in float32.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        local_rank: int,
        watch: Watch | None = None,
        *,
        shards: int,
        device: str,
    ) -> None:
        super().__init__(rank, size, local_rank, watch)
        shape, names = ((shards,), ("shard",)) if shards == size else ((size // shards, shards), BOTH)
        self.mesh = init_device_mesh(device, shape, mesh_dim_names=names)

    @property
    def evaluates(self) -> bool:
        """Every rank takes part: none has the whole model."""
        return True

    def wrap(self, module: nn.Module, precision: torch.dtype = torch.float32) -> nn.Module:
        """The module itself, with its model divided: `module.model`, as `StepModule` has it."""
        share_statistics(module)
        agree(module)
        model = module.model
        assert isinstance(model, nn.Module)
        for part in [*model.modules()]:
            if isinstance(part, ContextEncoder):
                for block in part.blocks:
                    self._divide(block, precision)
        # What is not divided yet stays whole from the first forward to the last backward pass of an update,
        # and after an evaluation. It is little, and has what must not be rounded.
        fully_shard(model, mesh=self.mesh, reshard_after_forward=False)
        return module

    def _divide(self, block: nn.Module, precision: torch.dtype) -> None:
        """Divide a block; or of it what autocast would round, to be gathered in `precision`."""
        maps = maps_of(block)
        if precision == torch.float32 or not maps:
            fully_shard(block, mesh=self.mesh)
        else:
            # What maps are given stays as it is: autocast rounds it where it is to be rounded.
            rounded = MixedPrecisionPolicy(precision, reduce_dtype=torch.float32, cast_forward_inputs=False)
            fully_shard(maps, mesh=self.mesh, mp_policy=rounded)

    def make_readable(self, model: nn.Module) -> None:
        """Gather all weights; blocks let theirs go again once they have computed."""
        for part in model.modules():
            if isinstance(part, FSDPModule):
                part.unshard()

    @contextmanager
    def micro_step(self, runner: nn.Module, *, is_last: bool) -> Iterator[None]:
        """Gradients stay whole, and here, until the last micro-step; so does what is not a block."""
        model = runner.model
        assert isinstance(model, FSDPModule)
        model.set_requires_gradient_sync(is_last)
        model.set_reshard_after_backward(is_last, recurse=False)
        with exchanging():
            yield

    def norm(self, parameters: Iterable[Tensor]) -> Tensor:
        """The norm over all parts of the gradient."""
        return whole(super().norm(parameters))

    def gather_state(
        self, model: nn.Module, optimizer: Optimizer | None = None
    ) -> tuple[dict[str, Tensor], OptimizerState | None]:
        """Copies of the whole state, on the first rank's CPU; on the others nothing is kept of it."""
        weights = self._gathered(weights_of(model))
        if optimizer is None:
            return weights, None
        state = state_of(optimizer)
        return weights, OptimizerState(tensors=self._gathered(state["tensors"]), groups=state["groups"])

    def _gathered(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors, one after the other: all at once would be what a device has no room for."""
        found = {}
        for name, x in tensors.items():
            gathered = whole(x.detach())
            if self.is_first:
                found[name] = gathered.to("cpu", copy=not isinstance(x, DTensor))
        return found

    def load_state(
        self,
        model: nn.Module,
        weights: Mapping[str, Tensor],
        optimizer: Optimizer,
        state: OptimizerState | None,
    ) -> None:
        """Each rank takes its part of a whole state, whatever number of ranks it comes from."""
        own = weights_of(model)
        parts = {name: divided(x, own[name]) for name, x in weights.items()}
        if state is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            tensors = {
                name: divided(x, parameters[int(name.partition(".")[0])])
                for name, x in state["tensors"].items()
            }
            state = OptimizerState(tensors=tensors, groups=state["groups"])
        super().load_state(model, parts, optimizer, state)


def whole(x: Tensor) -> Tensor:
    """The whole tensor of which a rank has a part. Every rank must call it."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def divided(x: Tensor, like: Tensor) -> Tensor:
    """A whole tensor as one that is divided like another of its shape; one of another shape as it is."""
    if not isinstance(like, DTensor) or x.shape != like.shape:
        return x
    x = x.to(like.device)
    return distribute_tensor(x, like.device_mesh, like.placements, src_data_rank=None)
