"""What `seqssl plan` says of memory and work, beside what a GPU needs. Needs CUDA, and no data.

python benchmarks/plan_on_gpu.py speech_w2vbert tiny base xl
"""

import sys
import time

import torch

from seqssl import Draws, build_model, load_recipe
from seqssl.assembly import Stages, streams_of
from seqssl.config.schema import RunConfig
from seqssl.planning.cost import Shape, cost_of
from seqssl.planning.hardware import peak_flops
from seqssl.planning.plan import needed_bytes, stage_of
from seqssl.training.optim import make_optimizer, trained_parameters
from seqssl.training.tasks import PretrainTask

NUM_UPDATES = 5


def measured(config: RunConfig, waiting: Stages) -> tuple[float, float]:
    """Peak bytes of whole updates of a full micro-batch, and the seconds of one; `waiting`: its stages."""
    (stream,) = streams_of(config)
    model = build_model(config, waiting=waiting).cuda().train()
    task = PretrainTask(model, 0)
    optimizer = make_optimizer(config.optim, trained_parameters(task))
    batch = Shape.of(stream, model).batch(stream, model)
    torch.cuda.reset_peak_memory_stats()
    times = []
    for update in range(NUM_UPDATES):
        draws = Draws((0, update), 1.0)
        plan = task.plan(batch, draws)
        torch.cuda.synchronize()
        began = time.perf_counter()
        enabled = config.train.precision != "float32"
        with torch.autocast("cuda", torch.bfloat16, enabled=enabled):
            output = task.step(batch.to("cuda"), plan.to("cuda"), draws)
            loss = torch.stack([*output.terms.values()]).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return torch.cuda.max_memory_allocated(), min(times)


def main(recipe: str, *sizes: str) -> None:
    """A line for each size."""
    name = torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}; one micro-batch, bfloat16")
    for size in sizes:
        for checkpointed in ("false", "true"):
            settings = (
                recipe,
                f"size={size}",
                f"train.checkpoint_activations={checkpointed}",
                "train.precision=bfloat16",
            )
            config, waiting = load_recipe(*settings), stage_of(*settings)
            cost, planned = cost_of(config, waiting=waiting), needed_bytes(config, waiting)
            peak, seconds = measured(config, waiting)
            torch.cuda.empty_cache()
            rate = cost.micro_flops / seconds
            use = rate / (peak_flops(name) or float("nan"))
            print(
                f"{size:6} checkpointing {checkpointed:5} | planned {planned / 2**30:6.2f} GiB, "
                f"needed {peak / 2**30:6.2f} GiB, ratio {planned / peak:.2f} | "
                f"{cost.micro_flops / 1e12:.3f} TFLOP in {seconds * 1e3:.1f} ms, {use:.0%} of the peak"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
