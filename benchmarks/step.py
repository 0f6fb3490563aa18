"""One optimizer step against HF transformers' Wav2Vec2ConformerForPreTraining at matched sizes.

    python benchmarks/step.py [device=cuda seconds=16 batch=8 dim=1024 layers=24 repeats=10 threads=2]

Two comparisons, each with its own ratio:

- equal math: the same seven convolutions over raw samples, blocks, quantizer, negatives and losses on both
  sides, and the same optimizer. HF's masks and negatives are sampled before the clock starts, ours inside it.
- recipe: w2v-BERT as `recipe=speech_w2vbert` builds it (log-mel, 25 frames a second, masked prediction on
  top) at the same number of blocks, against the same HF model.

Both models live in one process, and their steps take turns. Memory is measured in a process per model.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from modalities.speech import Speech
from seqssl import (
    Attention,
    Batch,
    ConformerBlock,
    ContextEncoder,
    ContrastiveLoss,
    Conv1dStack,
    DiversityLoss,
    GumbelProductQuantizer,
    LearnedCodes,
    MaskedPredictionLoss,
    PretrainingModel,
    SpanMasking,
)
from seqssl.planning.hardware import matmul_speed

RATE_HZ = 16_000
GROUPS, ENTRIES, NEGATIVES = 2, 320, 100  # wav2vec 2.0
MODELS = ("hf", "equal", "recipe")
Step = Callable[[], None]


@dataclass(frozen=True)
class Setting:
    """What the command line can set. The defaults are wav2vec 2.0 BASE with all widths divided by four."""

    device: str = "cpu"
    precision: str = "float32"  # set by the loop over both
    seconds: float = 8.0
    batch: int = 2
    dim: int = 192
    layers: int = 12
    kernel: int = 31
    repeats: int = 5
    threads: int = 0  # 0: as torch chooses

    @property
    def heads(self) -> int:
        """64 dimensions each."""
        return self.dim // 64

    @property
    def conv_dim(self) -> int:
        """Channels of the seven convolutions: 512 for 768 in BASE."""
        return self.dim * 2 // 3

    @property
    def code_dim(self) -> int:
        """Width of a quantized vector, and of both sides of the cosine: 256 for 768 in BASE."""
        return self.dim // 3


def blocks(setting: Setting) -> list[nn.Module]:
    """Conformer blocks without position in attention."""
    mixers = [Attention(setting.dim, num_heads=setting.heads) for _ in range(setting.layers)]
    sizes = {"dim": setting.dim, "ffn_dim": 4 * setting.dim, "conv_kernel": setting.kernel}
    return [ConformerBlock(mixer, **sizes) for mixer in mixers]


def equal_math(setting: Setting) -> PretrainingModel:
    """wav2vec 2.0 with a conformer, as HF's model is."""
    features = Conv1dStack(1, dim=setting.conv_dim)
    encoder = ContextEncoder(blocks(setting), None, taps={"output": setting.layers})
    objectives: dict[str, nn.Module] = {
        "contrastive": ContrastiveLoss(
            setting.dim,
            setting.code_dim,
            tap="output",
            num_negatives=NEGATIVES,
            final_dim=setting.code_dim,
        ),
        "diversity": DiversityLoss(),
    }
    quantizer = GumbelProductQuantizer(
        features.dim, num_codebooks=GROUPS, codebook_size=ENTRIES, dim=setting.code_dim
    )
    masking = SpanMasking(features.dim, fill="learned")
    return PretrainingModel(features, masking, LearnedCodes(quantizer), encoder, objectives, setting.dim)


def recipe(setting: Setting) -> PretrainingModel:
    """w2v-BERT: half of the blocks below the contrastive tap, masked prediction at the top."""
    features = Speech().feature_encoder(setting.dim)
    taps = {"contrastive": max(1, setting.layers // 2), "output": setting.layers}
    encoder = ContextEncoder(blocks(setting), None, taps=taps)
    objectives: dict[str, nn.Module] = {
        "contrastive": ContrastiveLoss(setting.dim, setting.dim, tap="contrastive", num_negatives=NEGATIVES),
        "diversity": DiversityLoss(),
        "masked_prediction": MaskedPredictionLoss(setting.dim, 1, 1024, tap="output"),
    }
    quantizer = GumbelProductQuantizer(features.dim, codebook_size=1024, dim=setting.dim)
    masking, targets = SpanMasking(features.dim), LearnedCodes(quantizer)
    return PretrainingModel(features, masking, targets, encoder, objectives, setting.dim)


def ours(model: PretrainingModel, setting: Setting) -> Step:
    """One update of ours, from the batch to the optimizer; masks and negatives are drawn in it."""
    device = torch.device(setting.device)
    model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    batch = Batch(waves(setting), torch.full((setting.batch,), int(setting.seconds * RATE_HZ)))
    on_cpu, on_device = torch.Generator().manual_seed(0), torch.Generator(device).manual_seed(0)
    moved = batch.to(device)

    def step() -> None:
        chosen = model.draw_mask(batch, on_cpu)
        frames = chosen.to(device)
        with precision(setting):
            output = model(moved, frames, temperature=2.0, generator=on_device)
        counts = model.counts(batch, chosen)
        loss = sum(output.weights[name] * total / counts[name] for name, total in output.terms.items())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def theirs(setting: Setting) -> Step:
    """One update of HF's; masks and negatives are drawn here, before."""
    from transformers import Wav2Vec2ConformerConfig, Wav2Vec2ConformerForPreTraining
    from transformers.models.wav2vec2.modeling_wav2vec2 import _sample_negative_indices
    from transformers.models.wav2vec2_conformer import modeling_wav2vec2_conformer as module

    config = Wav2Vec2ConformerConfig(
        hidden_size=setting.dim,
        num_hidden_layers=setting.layers,
        num_attention_heads=setting.heads,
        intermediate_size=4 * setting.dim,
        conv_depthwise_kernel_size=setting.kernel,
        position_embeddings_type=None,
        hidden_act="swish",
        conv_dim=(setting.conv_dim,) * 7,
        feat_extract_norm="layer",
        conv_bias=True,
        num_codevector_groups=GROUPS,
        num_codevectors_per_group=ENTRIES,
        codevector_dim=setting.code_dim,
        proj_codevector_dim=setting.code_dim,
        num_negatives=NEGATIVES,
        **dict.fromkeys(
            ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "layerdrop"),
            0.0,
        ),
        conformer_conv_dropout=0.0,
    )
    model = Wav2Vec2ConformerForPreTraining(config).to(setting.device).train()
    nn.init.uniform_(model.quantizer.codevectors)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    inputs = waves(setting).to(setting.device)
    shape = (setting.batch, int(model._get_feat_extract_output_lengths(torch.tensor(inputs.shape[1]))))
    start = time.perf_counter()
    mask = module._compute_mask_indices(shape, config.mask_time_prob, config.mask_time_length)
    negatives = _sample_negative_indices(shape, NEGATIVES, mask_time_indices=mask)
    taken = time.perf_counter() - start
    print(f"(HF's sampling of masks and negatives, not counted, took {taken:.3f} s)", file=sys.stderr)
    mask, negatives = (torch.from_numpy(x).to(setting.device) for x in (mask, negatives))

    def step() -> None:
        with precision(setting):
            output = model(inputs, mask_time_indices=mask, sampled_negative_indices=negatives)
        (output.loss / mask.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def waves(setting: Setting) -> Tensor:
    """Noise as loud as speech."""
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(setting.batch, int(setting.seconds * RATE_HZ), generator=generator)


def precision(setting: Setting) -> Any:
    """bfloat16 means autocast."""
    device = torch.device(setting.device).type
    return torch.autocast(device, torch.bfloat16) if setting.precision == "bfloat16" else nullcontext()


def made(name: str, setting: Setting) -> Step:
    """The step of a model by name."""
    torch.manual_seed(0)
    if name == "hf":
        return theirs(setting)
    return ours((equal_math if name == "equal" else recipe)(setting), setting)


def timed(step: Step, setting: Setting) -> float:
    """Seconds of one step, with the device's work finished."""
    start = time.perf_counter()
    step()
    if setting.device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleaved(setting: Setting) -> dict[str, list[float]]:
    """Step times of the models in turn, after two steps each that do not count."""
    steps = {name: made(name, setting) for name in MODELS}
    for step in [*steps.values()] * 2:
        timed(step, setting)
    times: dict[str, list[float]] = {name: [] for name in MODELS}
    for _ in range(setting.repeats):
        for name, step in steps.items():
            times[name].append(timed(step, setting))
    return times


def memory_mib(name: str, setting: Setting) -> float:
    """Peak of two steps in a process of their own: of the device, or resident above that after imports."""
    arguments = [f"{key}={value}" for key, value in asdict(setting).items()]
    command = [sys.executable, __file__, f"only={name}", *arguments]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def peak_mib(name: str, setting: Setting) -> float:
    """What `memory_mib` starts."""
    import transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer  # noqa: F401

    unit = 2**20 if sys.platform == "darwin" else 2**10
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = made(name, setting)
    for _ in range(2):
        timed(step, setting)
    if setting.device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit


def report(setting: Setting, memory: dict[str, float]) -> None:
    """The table of one precision."""
    speed = matmul_speed(setting.precision, device=setting.device) / 1e9
    times = interleaved(setting)
    heard = setting.batch * setting.seconds
    print(f"\n{setting.precision}: matrix product {speed:,.0f} GFLOP/s, {torch.get_num_threads()} threads")
    print(f"{'':8}{'s per step':>22}{'input s per s':>24}{'times HF':>20}{'peak MiB':>10}{'of HF':>8}")
    for name in MODELS:
        low, middle = min(times[name]), statistics.median(times[name])
        base, base_middle = min(times["hf"]), statistics.median(times["hf"])
        print(
            f"{name:8}{f'min {low:.3f} med {middle:.3f}':>22}"
            f"{f'max {heard / low:.1f} med {heard / middle:.1f}':>24}"
            f"{f'min {base / low:.2f} med {base_middle / middle:.2f}':>20}"
            f"{memory[name]:>10,.0f}{memory[name] / memory['hf']:>8.2f}"
        )


def main(arguments: list[str]) -> None:
    """`key=value` arguments; `only=MODEL` prints that model's peak memory."""
    given = dict(argument.split("=", 1) for argument in arguments)
    only = given.pop("only", None)
    types = {field.name: type(field.default) for field in fields(Setting)}
    setting = Setting(**{key: types[key](value) for key, value in given.items()})
    if setting.threads:
        torch.set_num_threads(setting.threads)
    if only:
        print(json.dumps(peak_mib(only, setting)))
        return
    device = torch.cuda.get_device_name() if setting.device != "cpu" else "cpu"
    print(f"{device}, torch {torch.__version__}: {setting}")
    precisions = [given["precision"]] if "precision" in given else ["float32", "bfloat16"]
    settings = [replace(setting, precision=precision) for precision in precisions]
    # Memory first: a child process inherits the peak of its parent.
    memories = [{name: memory_mib(name, one) for name in MODELS} for one in settings]
    for one, memory in zip(settings, memories, strict=True):
        report(one, memory)


if __name__ == "__main__":
    main(sys.argv[1:])
