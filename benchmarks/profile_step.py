"""Where the time of one update goes: torch's own operations by the time that they take themselves.

    python benchmarks/profile_step.py RECIPE [precision=float32] [rows=2] [length=SECONDS] [threads=1] [...]

Prints at most 15 rows: operations that do the same kind of work together, what each took of an update, and
how often it was called. The batch is the noise that `seqssl bench` times (rows from full length down to half
of it); the targets are fitted to it where they are fitted to data. A profiler slows
small operations down: only shares are to be read here, and times in `seqssl bench`.
"""

import sys
from collections import defaultdict

import torch
from torch.profiler import ProfilerActivity, profile

from seqssl.runs.train import resolve_device
from seqssl.studies.steps import Work, own_step

WARM_UP, STEPS, MOST_ROWS = 2, 3, 15
OWN = ("precision", "rows", "length", "threads")  # words that are not settings of the recipe
# The first kind with a name that an operation's begins with; what has none stays under its own name.
KINDS = {
    "matrix products": "mm addmm bmm baddbmm matmul mkldnn_linear mkl_linear addmv",
    "attention": "_scaled_dot_product _flash_attention _efficient_attention",
    "convolutions": "convolution mkldnn_convolution slow_conv thnn_conv _slow_conv",
    "optimizer and clipping": "_fused_adam _foreach _fused",
    "norms": "native_layer_norm native_batch_norm native_group_norm linalg_vector_norm _weight_norm",
    "activations": "gelu silu glu relu threshold sigmoid tanh",
    "softmax": "_softmax _log_softmax logsumexp",
    "copies, casts and layouts": "copy_ cat stack clone _to_copy contiguous constant_pad",
    "fills": "fill_ zero_ zeros ones new_zeros masked_fill where",
    "draws": "bernoulli rand normal_ uniform_ exponential_ dropout native_dropout multinomial",
    "gathers": "index gather scatter embedding sort argsort unique nonzero searchsorted",
    "sums": "sum mean cumsum amax amin max min argmax norm any all count_nonzero",
    "Fourier transforms": "_fft fft",
    "element by element": "add sub rsub mul div square sqrt rsqrt pow exp log neg abs clamp lerp addcmul "
    "addcdiv sin cos eq ne lt le gt ge bitwise logical isfinite",
}


def main() -> None:
    """Profile as the command line says."""
    recipe, *rest = sys.argv[1:]
    words = dict(word.split("=", 1) for word in rest)
    torch.set_num_threads(int(words.get("threads", 1)))
    settings = tuple(f"{key}={value}" for key, value in words.items() if key not in OWN)
    length = words.get("length")
    work = Work(recipe, settings, int(words.get("rows", 2)), float(length) if length else None)
    config = work.config(words.get("precision", "float32"))
    stream, device = work.stream(config), resolve_device(config.train)
    batch = work.batch(config, stream)
    step = own_step(config, stream, batch, device)
    for _ in range(WARM_UP):
        step()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as seen:
        for _ in range(STEPS):
            step()
    spent: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for event in seen.key_averages():
        time_us = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        kind = kind_of(event.key)
        spent[kind] += time_us / STEPS
        calls[kind] += event.count
    total = sum(spent.values())
    amount = f"{len(batch.lengths)} rows of {batch.inputs.shape[1]:,} steps"
    print(
        f"{' '.join([recipe, *settings])} {config.train.precision}, {amount}: {total / 1e3:,.0f} ms an update"
    )
    ordered = sorted(spent, key=lambda kind: -spent[kind])
    for kind in ordered[: MOST_ROWS - 1]:
        share = spent[kind] / total
        print(f"{kind:30} {spent[kind] / 1e3:9.1f} ms {share:7.1%} {calls[kind] / STEPS:8,.0f} calls")
    others = sum(spent[kind] for kind in ordered[MOST_ROWS - 1 :])
    print(f"{'all others':30} {others / 1e3:9.1f} ms {others / total:7.1%}")


def kind_of(name: str) -> str:
    """The kind of work of an operation; of what is not torch's, such as the optimizer's frame, "around"."""
    if not name.startswith("aten::"):
        return "around operations"
    plain = name.removeprefix("aten::")
    for kind, beginnings in KINDS.items():
        if plain.startswith(tuple(beginnings.split())):
            return kind
    return plain


if __name__ == "__main__":
    main()
