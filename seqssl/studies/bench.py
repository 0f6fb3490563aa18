"""How fast a recipe trains on this machine, what bounds it, and what transformers takes for the same work."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from seqssl.assembly import Stream, assemble, streams_of
from seqssl.config.schema import RunConfig
from seqssl.data.files import Progress, silent
from seqssl.errors import UserError
from seqssl.interop import peers
from seqssl.model.objectives import ContrastiveLoss
from seqssl.model.targets import LearnedCodes
from seqssl.model.types import Batch, Context, Features, MaskedFrames
from seqssl.planning.hardware import matmul_speed
from seqssl.planning.measure import measure
from seqssl.runs.streams import opened, training_batches
from seqssl.runs.train import resolve_device
from seqssl.studies.steps import OURS, PRECISIONS, THEIRS, Work, interleaved, peak_mib, steps_of
from seqssl.training.parallel import Alone

HEAD_ROWS, HEAD_FRAMES = 8, 512  # masked frames that the heads are timed on: 4,096
HEAD_REPEATS = 15
READ_SECONDS = 5.0  # for which batches are read
Values = dict[str, Any]  # every figure by name, as JSON has it


def heads(config: RunConfig, stream: Stream, device: torch.device) -> dict[str, dict[str, float]]:
    """Seconds of the quantizer, and of the contrastive loss, forward and backward, on 4,096 masked frames."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        peer = peers.peer_of(config, stream.spec).to(device).train()
    model = assemble(config, [stream]).of("").to(device).train()
    size, generator = (HEAD_ROWS, HEAD_FRAMES), torch.Generator().manual_seed(0)
    frames = MaskedFrames.of(torch.ones(size, dtype=torch.bool))
    contrast = model.objectives.named["contrastive"]
    assert isinstance(contrast, ContrastiveLoss)
    negatives = peers.negatives_of(frames, contrast.num_negatives, generator).to(device)
    frames = frames.to(device)
    own = torch.Generator(device).manual_seed(0)
    x = torch.randn(*size, model.feature_encoder.dim, generator=generator).to(device).requires_grad_()
    context = torch.randn(*size, config.encoder.dim, generator=generator).to(device).requires_grad_()
    assert isinstance(model.targets, LearnedCodes)
    quantizer = model.targets.quantizer
    with torch.no_grad():
        drawn = quantizer(frames.take(x), temperature=1.0, generator=own)
    given = replace(drawn, vectors=drawn.vectors.requires_grad_(), probs=None)
    features = Features(x, torch.full((HEAD_ROWS,), HEAD_FRAMES, device=device))
    theirs: Any = peer.quantizer
    peers.heads_of(peer, context, x)
    batch = Batch(torch.zeros(*size, device=device), features.lengths)

    def own_quantizer() -> None:
        quantizer(frames.take(x), temperature=1.0, generator=own).vectors.sum().backward()

    def their_quantizer() -> None:
        theirs(x, frames.mask)[0].sum().backward()

    def own_contrast() -> None:
        term = contrast(Context(frames.take(context), frames, features), given, own)
        (term.total / len(frames)).backward()

    def their_contrast() -> None:
        peers.peer_loss(peer, batch, frames, negatives).backward()

    found = {"quantizer": interleaved({OURS: own_quantizer, THEIRS: their_quantizer}, HEAD_REPEATS, device)}
    peer.quantizer = peers.Given((given.vectors.view(*size, -1), torch.ones((), device=device)))
    pair = {OURS: own_contrast, THEIRS: their_contrast}
    return found | {"contrastive loss": interleaved(pair, HEAD_REPEATS, device)}


def reading_speed(config: RunConfig, progress: Progress = silent) -> float:
    """Input steps that the loader of the training split gives in a second, read and batched as in a run."""
    stream = opened(streams_of(config)[0], Alone(), torch.device("cpu"), progress)
    batches = training_batches([stream], seed=config.seed, group=config.train.accumulate).endless(0, 0, 1)
    next(batches)  # workers start
    begun, read = time.perf_counter(), 0
    while time.perf_counter() - begun < READ_SECONDS:
        read += int(next(batches).lengths.sum())
    return read / (time.perf_counter() - begun)


def bench(
    work: Work,
    *,
    repeats: int = 5,
    precisions: Sequence[str] = PRECISIONS,
    say: Callable[[str], None] = print,
    progress: Progress = silent,
) -> Values:
    """Measure a step at each precision, the heads, and the loader where `data` is named; every figure."""
    config = work.config()
    device, stream = resolve_device(config.train), work.stream(config)
    names, alone = [OURS, THEIRS], ""
    try:
        peers.peer_of(config, stream.spec)
    except UserError as error:
        names, alone = [OURS], str(error)
    rate = stream.spec.rate_hz
    values: Values = {
        "recipe": config.recipe,
        "size": config.size,
        "rows": work.rows,
        "input": float(work.batch(stream, assemble(config, [stream]).of("")).lengths.sum()) / (rate or 1),
        "unit": "s" if rate else "steps",
        "threads": torch.get_num_threads(),
        "device": device.type,
        "alone": alone,
        "steps": {each: of_precision(work, each, names, repeats, device, say) for each in precisions},
    }
    if not alone:
        say("quantizer and contrastive loss")
        values["heads"] = heads(config, stream, device)
    if config.data.source:
        values["read"] = reading_speed(config, progress) / (rate or 1)
    return values


def of_precision(
    work: Work,
    precision: str,
    names: Sequence[str],
    repeats: int,
    device: torch.device,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The figures of a step at one precision."""
    config = work.config(precision)
    stream = work.stream(config)
    say(f"{precision}: memory, and {repeats} rounds")
    peaks = {name: peak_mib(work, name, precision) for name in names}
    flops = measure(
        lambda place: assemble(config, [stream], place).of(""),
        work.batch(stream, assemble(config, [stream]).of("")),
        lambda model: {},
        bfloat16=precision == "bfloat16",
    ).flops
    speed = matmul_speed(precision, device=device.type)
    seconds = interleaved(steps_of(work, config, stream, device, names), repeats, device)
    return {"seconds": seconds, "peak_mib": peaks, "flops": flops, "matrix_product": speed}


def page(values: Values) -> str:
    """The tables, in Markdown."""
    heard, unit = values["input"], values["unit"]
    lines = [
        f"`{values['recipe']}`, size {values['size']}: {values['rows']} rows, {heard:,.4g} {unit} of input; "
        f"{values['threads']} threads\n",
        f"| precision | model | ms a step | input, {unit}/s | times transformers | GFLOP/s "
        "| of a matrix product | peak MiB | of transformers |",
        "| --- | --- |" + " ---: |" * 7,
    ]
    for precision, found in values["steps"].items():
        seconds, peaks = found["seconds"], found["peak_mib"]
        for name in seconds:
            speed = found["flops"] / seconds[name]
            cells = [
                precision,
                name,
                f"{1e3 * seconds[name]:,.0f}",
                f"{heard / seconds[name]:,.4g}",
                _ratio(seconds.get(THEIRS), seconds[name]),
                f"{speed / 1e9:,.0f}" if name == OURS else "",
                f"{speed / found['matrix_product']:.0%}" if name == OURS else "",
                f"{peaks[name]:,.0f}",
                _ratio(peaks[name], peaks.get(THEIRS)),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    if values["alone"]:
        lines.append(f"\nNot beside transformers: {values['alone']}")
    if "heads" in values:
        title = f"{HEAD_ROWS * HEAD_FRAMES:,} masked frames, float32"
        lines += [f"\n| {title} | ms | transformers, ms | times |", "| --- | ---: | ---: | ---: |"]
        for name, seconds in values["heads"].items():
            times = f"{1e3 * seconds[OURS]:,.1f} | {1e3 * seconds[THEIRS]:,.1f}"
            lines.append(f"| {name} | {times} | {_ratio(seconds[THEIRS], seconds[OURS])} |")
    if "read" in values:
        fastest = max(heard / found["seconds"][OURS] for found in values["steps"].values())
        times = f"{values['read'] / fastest:.1f} times what a step takes"
        lines.append(f"\nThe loader reads {values['read']:,.4g} {unit} a second, {times}.")
    return "\n".join(lines) + "\n"


def _ratio(one: float | None, other: float | None) -> str:
    """One by the other, where both are known."""
    return f"{one / other:.2f}" if one and other else ""
