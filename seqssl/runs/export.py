"""A run's encoder in the formats of other libraries, with a certificate of how far outputs are from ours."""

import json
import math
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml
from jaxtyping import Float, Shaped
from torch import Tensor, nn

import seqssl
from seqssl.config.compose import to_yaml
from seqssl.config.schema import RunConfig
from seqssl.data.adapters import SampleSpec
from seqssl.data.wording import shortened
from seqssl.errors import UserError
from seqssl.evaluation.frozen import Encoder
from seqssl.interop.hugging_face import export_folder, is_idle, read_folder
from seqssl.interop.twins import ends_at_the_top, refuse, twin_of
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.types import Batch
from seqssl.runs.finetune import alone_of
from seqssl.runs.folder import find_run, load, read_provenance
from seqssl.training.checkpoint import State, added, save, weights_of

FORMATS = ("hf", "onnx", "safetensors")
TOLERANCE = 1e-4  # of a single output, as a share of the largest one where that is above 1
FRAMES = (16, 50, 133, 400)  # lengths of the rows that are compared, up to more than a part may see at once
SCALE = {"mean": [0.0], "std": [0.1]}  # of trial values, where a run does not know that of its data
GAP = 17  # every so many trial values one is missing, where the encoder reads what is missing

Run = Callable[[Shaped[np.ndarray, "t *c"]], Float[np.ndarray, "s d"]]
Scale = Mapping[str, list[float]]


@dataclass(frozen=True)
class Certificate:
    """How far the frames of an exported encoder are from ours, on rows of several lengths."""

    to: str
    run: str
    stream: str
    weights: str
    tap: str
    max_abs_difference: float
    tolerance: float
    largest_output: float
    lengths: list[int]  # in input steps
    scale: Scale | None  # of the values, each channel's mean and deviation; None: they were ids
    seqssl: str = seqssl.__version__
    torch: str = torch.__version__
    machine: str = platform.machine()


def export(
    run: str | Path, to: str, out: str | Path, *, weights: str = "last", stream: str = ""
) -> Certificate:
    """Write the encoder of a run to a new folder, read it back there, and compare; the certificate.

    `to`: "hf", a folder that transformers opens; "onnx", `encoder.onnx`, for one row of any length;
    "safetensors", the weights of the encoder alone, with config.yaml: `load` opens it, too. The certificate
    is `certificate.json`. `stream`: which kind of data, for a joint run.

    UserError where the format has no such encoder, and where outputs differ by more than `TOLERANCE`: then
    nothing is left.
    """
    if to not in FORMATS:
        raise UserError(f"to = {to}: expected {', '.join(FORMATS)}.")
    if weights not in ("last", "best"):
        raise UserError(f"weights = {weights}: expected last or best.")
    folder = Path(out).expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"out = {out}: is there already; name a new folder.")
    encoder = load(run, weights=weights, device="cpu", stream=stream)
    config, source = find_run(Path(run).expanduser().resolve())
    config, origin = alone_of(config, stream) if stream else config, read_provenance(source, stream)
    slack = twin_of(config, encoder.spec).slack if to == "hf" else 1.0
    trial = Trial.of(encoder, origin.get("statistics"), gaps=to != "hf")  # transformers reads no gaps
    write: Callable[[Encoder, Path], Run] = {
        "hf": partial(_hugging_face, config),
        "onnx": partial(_onnx, trial),
        "safetensors": partial(_safetensors, config, origin),
    }[to]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as place:
        made = Path(place) / folder.name
        made.mkdir()
        worst, largest = compared(encoder, write(encoder, made), trial)
        allowed = TOLERANCE * slack * max(1.0, largest)
        found = Certificate(
            to, str(run), stream, weights, encoder.tap, worst, allowed, largest, trial.lengths, trial.scale
        )
        if not worst <= allowed:
            raise UserError(f"the exported encoder differs by {worst}, more than {allowed}: nothing is kept.")
        (made / "certificate.json").write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
    return found


@dataclass(frozen=True)
class Trial:
    """The rows by which encoders are compared: random ids, or values at the scale of a run's data."""

    spec: SampleSpec
    lengths: list[int]  # in input steps
    scale: Scale | None  # None for ids
    gaps: bool  # whether some values are missing

    @classmethod
    def of(cls, encoder: Encoder, statistics: Scale | None, *, gaps: bool) -> "Trial":
        """Rows for an encoder; `statistics` of its run's data, `gaps` if it reads what is missing."""
        spec, model = encoder.spec, encoder.model
        frames = (*FRAMES[:-1], max(FRAMES[-1], 2 * reach(model) + 1))
        steps = {math.ceil(number * model.stride) for number in frames}
        lengths = sorted({min(size, spec.max_len or size) for size in steps})
        scale = None if spec.vocab_size is not None else statistics or SCALE
        return cls(spec, lengths, scale, gaps and "observed" in model.extra_inputs)

    def row(self, number: int) -> Shaped[np.ndarray, "t *c"]:
        """The row whose length is at this place of `lengths`."""
        rng, steps = np.random.default_rng(number), self.lengths[number]
        shape = (steps,) if self.spec.channels is None else (steps, self.spec.channels)
        if self.scale is None:
            return rng.integers(self.spec.vocab_size or 1, size=shape)
        mean, std = (np.array(self.scale[name]) for name in ("mean", "std"))
        values: np.ndarray = (mean + std * rng.normal(size=shape)).astype(np.float32)
        if self.gaps:
            values.reshape(-1)[GAP::GAP] = np.nan
        return values


def reach(model: PretrainingModel) -> int:
    """The largest whole number among the settings of the mixers: how much one may see at once is of these."""
    mixers = [getattr(part, "mixer", None) for part in model.encoder.modules()]
    settings = [value for mixer in mixers for value in getattr(mixer, "__dict__", {}).values()]
    return max((value for value in settings if type(value) is int), default=0)


def compared(encoder: Encoder, theirs: Run, trial: Trial) -> tuple[float, float]:
    """The largest difference of an output, and the largest output."""
    worst, largest = 0.0, 0.0
    for number, steps in enumerate(trial.lengths):
        row = trial.row(number)
        ours = encoder.frames([row], [encoder.tap])[encoder.tap][0]
        given = theirs(row)
        if given.shape != ours.shape:
            raise UserError(f"the exported encoder gives {given.shape} for {steps} steps, ours {ours.shape}.")
        difference = np.abs(given - ours)
        worst = max(worst, float(difference.max()) if np.isfinite(difference).all() else math.inf)
        largest = max(largest, float(np.abs(ours).max()))
    return worst, largest


class OneRow(nn.Module):
    """The encoder as a function of one row's inputs alone: frames (1, s, d) of a tap."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.model, self.tap, self.missing_id = encoder.model, encoder.tap, encoder.spec.missing_id
        self.reads_gaps = encoder.spec.vocab_size is None and "observed" in encoder.model.extra_inputs

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode (1, t) or (1, t, c); NaN, or the id that stands for a missing one, is read as missing."""
        lengths = torch.full((1,), inputs.shape[1], dtype=torch.long)
        observed = None if self.missing_id is None else inputs != self.missing_id
        if self.reads_gaps:
            observed = ~inputs.isnan()
            inputs = torch.where(observed, inputs, 0.0)
        frames: Tensor = self.model.encode(Batch(inputs, lengths, observed=observed), self.tap).x
        return frames


def _onnx(trial: Trial, encoder: Encoder, folder: Path) -> Run:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch wants it)
    except ImportError as error:
        raise UserError(f"{error}: pip install 'seqssl[onnx]'.") from error
    row = torch.from_numpy(trial.row(0))[None]
    path = folder / "encoder.onnx"
    with told(), torch.no_grad():
        program = torch.onnx.export(
            OneRow(encoder).eval(), (row,), dynamo=True, verbose=False,
            dynamic_shapes={"inputs": {1: torch.export.Dim.DYNAMIC(min=row.shape[1])}},
            input_names=["inputs"], output_names=["frames"],
        )  # fmt: skip
    assert program is not None
    program.save(str(path))
    with told():
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(given: Shaped[np.ndarray, "t *c"]) -> Float[np.ndarray, "s d"]:
        with told():
            (frames,) = session.run(None, {"inputs": given[None]})
        found: np.ndarray = np.asarray(frames)[0]
        return found

    return run


@contextmanager
def told() -> Iterator[None]:
    """A context in which a failure of another library is a UserError: there is no such model in ONNX."""
    try:
        yield
    except Exception as error:
        reason = shortened(f"{type(error).__name__}: {error}")
        raise UserError(
            f"ONNX has no form of this encoder ({reason}): export it to=safetensors, or take parts whose "
            "operations ONNX has and that do not count frames in Python."
        ) from error


def _safetensors(config: RunConfig, origin: Mapping[str, object], encoder: Encoder, folder: Path) -> Run:
    """A checkpoint of the encoder alone, with its config.yaml beside it."""
    kept = {name: x for name, x in added(weights_of(encoder.model)).items() if not is_idle(name, config)}
    save(folder, kept, None, State(update=0, cursor=0, best=None, tally={}))
    text = to_yaml(config) + yaml.safe_dump({"provenance": dict(origin)}, sort_keys=False)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    again = load(folder, device="cpu")
    return lambda given: again.frames([given], [again.tap])[again.tap][0]


def _hugging_face(config: RunConfig, encoder: Encoder, folder: Path) -> Run:
    refuse(ends_at_the_top(config))
    export_folder(twin_of(config, encoder.spec), added(weights_of(encoder.model)), folder)
    return read_folder(folder)
