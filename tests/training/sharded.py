"""Run by torchrun on two ranks: a strategy in which no rank has the whole model; see test_sharded.py."""

import sys
from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from seqssl import cli
from seqssl.training import parallel
from seqssl.training.checkpoint import OptimizerState


class FakeSharded(parallel.Replicated):
    """A rank keeps its half of every weight; after an update the other half is not a number.

    A module gathers its weights when it is called, as torch's FSDP2 does. Whoever reads weights, norms or the
    optimizer without a collective gets nonsense, and a collective that one rank leaves out never returns.
    """

    evaluates = True

    def mine(self, x: Tensor) -> slice:
        """The part of the flat tensor that this rank keeps."""
        return slice(self.rank * x.numel() // self.size, (self.rank + 1) * x.numel() // self.size)

    def whole(self, x: Tensor) -> Tensor:
        """The halves of all ranks together."""
        own = torch.zeros_like(x)
        own.view(-1)[self.mine(x)] = x.detach().reshape(-1)[self.mine(x)]
        return self.sum(own)

    def forget(self, x: Tensor) -> None:
        """Keep this rank's half alone."""
        kept = torch.full_like(x, torch.nan)
        kept.view(-1)[self.mine(x)] = x.detach().reshape(-1)[self.mine(x)]
        x.data.copy_(kept)

    def gather(self, module: nn.Module, inputs: object) -> None:
        """Before a module is called: its own weights, and those of its parts, which it may read itself."""
        for p in module.parameters():
            p.data.copy_(self.whole(p))

    def wrap(self, module: nn.Module) -> nn.Module:
        for part in module.modules():
            part.register_forward_pre_hook(self.gather)
        return super().wrap(module)

    def norm(self, parameters: Iterable[Tensor]) -> Tensor:
        parameters = [p for p in parameters if p.grad is not None]
        squares = sum(p.grad.reshape(-1)[self.mine(p)].square().sum() for p in parameters)
        norm = self.sum(torch.as_tensor(squares)).sqrt()
        for p in parameters:
            self.forget(p)
        return norm

    def gather_state(
        self, model: nn.Module, optimizer: Optimizer | None = None
    ) -> tuple[dict[str, Tensor], OptimizerState | None]:
        weights, state = super().gather_state(model, optimizer)
        weights = {name: self.whole(x) if isinstance(x, nn.Parameter) else x for name, x in weights.items()}
        if state is not None:
            tensors = {n: self.whole(x) if x.dim() else x for n, x in state["tensors"].items()}
            state = OptimizerState(tensors=tensors, groups=state["groups"])
        return weights, state

    def load_state(
        self,
        model: nn.Module,
        weights: Mapping[str, Tensor],
        optimizer: Optimizer,
        state: OptimizerState | None,
    ) -> None:
        super().load_state(model, weights, optimizer, state)
        for p in model.parameters():
            self.forget(p)
        dist.barrier()


if __name__ == "__main__":
    torch.set_num_threads(1)
    parallel.Replicated = FakeSharded
    sys.exit(cli.main(["train", *sys.argv[1:]]))
