"""How fast a recipe trains on this machine, what bounds it, and what transformers takes for the same work."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from seqssl.assembly import OpenStream, Stream, assemble
from seqssl.config.schema import RunConfig
from seqssl.data.files import Progress, silent
from seqssl.errors import UserError
from seqssl.interop import peers
from seqssl.model.objectives import ContrastiveLoss
from seqssl.model.targets import LearnedCodes
from seqssl.model.types import Batch, Context, Features, MaskedFrames
from seqssl.planning.hardware import has_fast_bfloat16, matmul_speed
from seqssl.planning.measure import measure
from seqssl.ruler.executor import hardware
from seqssl.runs.streams import opened, training_batches
from seqssl.runs.train import resolve_device
from seqssl.studies.steps import OURS, PRECISIONS, THEIRS, Work, interleaved, peak_mib, steps_of
from seqssl.training.parallel import Alone

HEAD_ROWS, HEAD_FRAMES = 8, 512  # masked frames that the heads are timed on: 4,096
HEAD_REPEATS = 15
READ_SECONDS = 5.0  # for which batches are read
Values = dict[str, Any]  # every figure by name, as JSON has it


def bench(
    work: Work,
    *,
    repeats: int = 5,
    precisions: Sequence[str] = (),
    say: Callable[[str], None] = print,
    progress: Progress = silent,
) -> Values:
    """Measure a step at each precision, the heads, and the loader where `data` is named; every figure.

    No precisions: that of the settings, else both, where the device multiplies in bfloat16.
    """
    config = work.config()
    work = replace(work, settings=(*work.settings, f"size={config.size}"))  # size=auto is chosen once
    device, stream = resolve_device(config.train), work.stream(config)
    batch = work.batch(config, stream)
    source = None
    if config.data.source:  # what is wrong with it is said before minutes of steps
        source = opened(stream, Alone(), torch.device("cpu"), progress)
    names, alone = [OURS, THEIRS], ""
    try:
        peers.peer_of(config, stream.spec).load()
    except UserError as error:
        names, alone = [OURS], str(error)
    chosen = tuple(precisions) or _precisions(config, device)
    peaks = {}
    for precision in chosen:
        say(f"memory in {precision}")
        peaks[precision] = {name: peak_mib(work, name, precision, beside=THEIRS in names) for name in names}
    found = {}
    for precision in chosen:
        say(f"{repeats} steps in {precision}")
        own = work.config(precision)
        found[precision] = of_precision(own, stream, batch, device, names, repeats)
        found[precision]["peak_mib"] = peaks[precision]
    # Of rates below one a second, steps say more than years per second.
    rate = stream.spec.rate_hz if (stream.spec.rate_hz or 0) >= 1 else None
    values: Values = {
        "recipe": config.recipe,
        "size": config.size,
        "rows": work.rows,
        "longest": int(batch.lengths.max()) / (rate or 1),
        "input": int(batch.lengths.sum()) / (rate or 1),
        "unit": "s" if rate else "steps",
        "device": hardware(gpu=device.type == "cuda"),
        "threads": torch.get_num_threads(),
        "versions": {name: _version(name) for name in ("torch", "transformers")},
        "alone": alone,
        "steps": found,
    }
    if not alone:
        say("quantizer and contrastive loss")
        values["heads"] = heads(config, stream, device)
    if source is not None:
        say("loader")
        values["read"] = reading_speed(config, source) / (rate or 1)
    return values


def _precisions(config: RunConfig, device: torch.device) -> tuple[str, ...]:
    """What is measured where nobody says."""
    if config.train.precision != "auto":
        return (config.train.precision,)
    return PRECISIONS if device.type == "cuda" or has_fast_bfloat16() else PRECISIONS[:1]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def of_precision(
    config: RunConfig, stream: Stream, batch: Batch, device: torch.device, names: Sequence[str], repeats: int
) -> dict[str, Any]:
    """Seconds of every step, what ours computes, and the best matrix product before and after them."""
    precision = config.train.precision
    flops = measure(
        lambda place: assemble(config, [stream], place).of(stream.name), batch, lambda model: {},
        bfloat16=precision == "bfloat16",
    ).flops  # fmt: skip
    gc.collect()
    if device.type == "cuda":  # what the models of another precision have left
        torch.cuda.empty_cache()
    before = matmul_speed(precision, device=device.type)
    seconds = interleaved(steps_of(config, stream, batch, device, names), repeats, device)
    fastest = max(before, matmul_speed(precision, device=device.type))
    return {"seconds": seconds, "flops": flops, "matrix_product": fastest}


def heads(config: RunConfig, stream: Stream, device: torch.device) -> dict[str, dict[str, list[float]]]:
    """Seconds of the quantizer, and of the contrastive loss, forward and backward, on 4,096 masked frames."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        peer: Any = peers.peer_of(config, stream.spec).build().to(device).train()
    model = assemble(config, [stream]).of(stream.name).to(device).train()
    size, generator = (HEAD_ROWS, HEAD_FRAMES), torch.Generator().manual_seed(0)
    frames = MaskedFrames.of(torch.ones(size, dtype=torch.bool))
    negatives = peers.negatives_of(frames, peer.config.num_negatives, generator).to(device)
    frames = frames.to(device)
    own = torch.Generator(device).manual_seed(0)
    x = torch.randn(*size, model.feature_encoder.dim, generator=generator).to(device).requires_grad_()
    context = torch.randn(*size, config.encoder.dim, generator=generator).to(device).requires_grad_()
    (contrast,) = (each for each in model.objectives.named.values() if isinstance(each, ContrastiveLoss))
    assert isinstance(model.targets, LearnedCodes)
    quantizer, theirs = model.targets.quantizer, peer.quantizer
    with torch.no_grad():
        drawn = quantizer(frames.take(x), temperature=1.0, generator=own)
    given = replace(drawn, vectors=drawn.vectors.requires_grad_(), probs=None)
    features = Features(x, torch.full((HEAD_ROWS,), HEAD_FRAMES, device=device))
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

    peers.heads_of(peer, context, x)
    pair = {OURS: own_quantizer, THEIRS: their_quantizer}
    found = {"quantizer": interleaved(pair, HEAD_REPEATS, device)}
    peer.quantizer = peers.Given((given.vectors.view(*size, -1), torch.ones((), device=device)))
    pair = {OURS: own_contrast, THEIRS: their_contrast}
    return found | {"contrastive loss": interleaved(pair, HEAD_REPEATS, device)}


def reading_speed(config: RunConfig, stream: OpenStream) -> float:
    """Input steps that the loader of the training split gives in a second, read and batched as in a run."""
    number, device = config.train.accumulate, resolve_device(config.train)
    loader = training_batches([stream], seed=config.seed, group=number, device=device, at_once=number)
    batches = loader.endless(0, 0, 1)
    next(batches)  # workers start
    begun, read = time.perf_counter(), 0
    while time.perf_counter() - begun < READ_SECONDS:
        read += int(next(batches).lengths.sum())
    return read / (time.perf_counter() - begun)


def page(values: Values) -> str:
    """The tables, in Markdown: medians."""
    heard, unit = values["input"], values["unit"]
    versions = ", ".join(f"{name} {number}" for name, number in values["versions"].items() if number)
    lines = [
        f"`{values['recipe']}`, size {values['size']}: one micro-batch of {values['rows']} rows of up to "
        f"{_number(values['longest'])} {unit}, {_number(heard)} {unit} in all; {values['device']}, "
        f"{values['threads']} threads, {versions}\n",
        f"| precision | model | ms a step (least, most) | input, {unit}/s | times transformers | GFLOP/s "
        "| of a matrix product | peak MiB | of transformers |",
        "| --- | --- |" + " ---: |" * 7,
    ]
    for precision, found in values["steps"].items():
        times, peaks = found["seconds"], found["peak_mib"]
        for name in times:
            middle = statistics.median(times[name])
            speed = found["flops"] / middle
            cells = [
                precision,
                name,
                f"{1e3 * middle:,.0f} ({1e3 * min(times[name]):,.0f}, {1e3 * max(times[name]):,.0f})",
                _number(heard / middle),
                _ratio(times, name),
                _number(speed / 1e9) if name == OURS else "",
                f"{speed / found['matrix_product']:.0%}" if name == OURS else "",
                f"{peaks[name]:,.0f}",
                f"{peaks[name] / peaks[THEIRS]:.2f}" if peaks.get(THEIRS) else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    if values["alone"]:
        lines.append(f"\nNot beside transformers: {values['alone']}")
    if "heads" in values:
        title = f"{HEAD_ROWS * HEAD_FRAMES:,} masked frames, float32"
        lines += [f"\n| {title} | ms | transformers, ms | times |", "| --- | ---: | ---: | ---: |"]
        for name, times in values["heads"].items():
            shown = [f"{1e3 * statistics.median(times[each]):,.1f}" for each in (OURS, THEIRS)]
            lines.append(f"| {name} | {' | '.join(shown)} | {_ratio(times, OURS)} |")
    if "read" in values:
        fastest = max(heard / statistics.median(found["seconds"][OURS]) for found in values["steps"].values())
        times = f"{values['read'] / fastest:.1f} times what such a step takes"
        lines.append(f"\nThe loader reads {_number(values['read'])} {unit} a second, {times}.")
    return "\n".join(lines) + "\n"


def _ratio(times: dict[str, list[float]], name: str) -> str:
    """How many times as fast as transformers, by medians; "" where it was not timed."""
    if THEIRS not in times:
        return ""
    return f"{statistics.median(times[THEIRS]) / statistics.median(times[name]):.2f}"


def _number(value: float) -> str:
    """Three or four digits that matter, never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
