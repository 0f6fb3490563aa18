"""Run by torchrun on two ranks: a whole run, then the shared statistics; see test_ranks.py."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from seqssl import cli
from seqssl.model.layers import MaskedBatchNorm
from seqssl.training import distributed

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, arguments = Path(sys.argv[1]), sys.argv[2:]
    assert cli.main(["train", *arguments]) == 0
    ranks = distributed.start(torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    rows, lengths = torch.randn(4, 6, 3, generator=generator), torch.tensor([6, 2, 5, 1])
    norm = MaskedBatchNorm(3).train()
    model = distributed.synchronize(torch.nn.ModuleList([norm]), ranks).module
    mine = slice(2 * ranks.rank, 2 * ranks.rank + 2)
    x = rows[mine].clone().requires_grad_()
    y = model[0](x, torch.arange(6) < lengths[mine, None])
    y.square().sum().mul(y.detach().sum()).backward()  # each rank's loss differs
    gathered = [torch.zeros_like(y), torch.zeros_like(y)]
    dist.all_gather(gathered, y.detach())
    grads = [torch.zeros_like(x), torch.zeros_like(x)]
    dist.all_gather(grads, x.grad)
    if ranks.is_first:
        result = {"y": torch.cat(gathered).tolist(), "mean": norm.running_mean.tolist()}
        (folder / "shared.json").write_text(json.dumps(result | {"grad": torch.cat(grads).tolist()}))
    distributed.stop(ranks)
