"""A run's encoder in the formats of other libraries, with a certificate of how far outputs are from ours."""

import json
import math
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import seqssl
from seqssl.assembly import build_model, set_scaling
from seqssl.data.adapters import SampleSpec
from seqssl.errors import UserError
from seqssl.evaluation.frozen import Encoder
from seqssl.interop.hugging_face import export_folder, is_head, read_folder
from seqssl.interop.twins import twin_of
from seqssl.model.types import Batch
from seqssl.runs.folder import find_run, load, read_provenance
from seqssl.training.checkpoint import weights_of

FORMATS = ("hf", "onnx", "safetensors")
TOLERANCE = 1e-4  # of a single output
FRAMES = (16, 50, 133, 400)  # lengths of the rows that are compared, up to more than a part may see at once

Run = Callable[[Shaped[np.ndarray, "t *c"]], Float[np.ndarray, "s d"]]


@dataclass(frozen=True)
class Certificate:
    """How far the frames of an exported encoder are from ours, on rows of several lengths."""

    to: str
    run: str
    weights: str
    tap: str
    max_abs_difference: float
    largest_output: float
    lengths: list[int]  # in input steps
    seqssl: str = seqssl.__version__
    torch: str = torch.__version__
    machine: str = platform.machine()


def export(run: str | Path, to: str, out: str | Path, *, weights: str = "last") -> Certificate:
    """Write the encoder of a run to a new folder, read it back there, and compare; the certificate.

    `to`: "hf", a folder that transformers opens; "onnx", `encoder.onnx`, for one row of any length;
    "safetensors", the weights of the encoder alone, with config.yaml. The certificate is `certificate.json`.
    UserError where the format has no such encoder, and where outputs differ by more than `TOLERANCE`: then
    nothing is left.
    """
    if to not in FORMATS:
        raise UserError(f"to = {to}: expected {', '.join(FORMATS)}.")
    if weights not in ("last", "best"):
        raise UserError(f"weights = {weights}: expected last or best.")
    folder = Path(out).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"out = {folder}: is there already; name a new folder.")
    encoder = load(run, weights=weights, device="cpu")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        theirs = {"hf": _hugging_face, "onnx": _onnx, "safetensors": _safetensors}[to](run, encoder, partial)
        worst, largest, lengths = compared(encoder, theirs)
        found = Certificate(to, str(find_run(run)[1]), weights, encoder.tap, worst, largest, lengths)
        if not worst <= TOLERANCE:
            raise UserError(
                f"the exported encoder differs by {worst}, more than {TOLERANCE}: nothing is kept."
            )
        (partial / "certificate.json").write_text(
            json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8"
        )
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


def compared(encoder: Encoder, theirs: Run) -> tuple[float, float, list[int]]:
    """The largest difference of an output, the largest output, and the lengths of the rows compared."""
    worst, largest = 0.0, 0.0
    lengths: list[int] = []
    for number, frames in enumerate(FRAMES):
        steps = math.ceil(frames * encoder.model.stride)
        row = trial_row(encoder.spec, steps, seed=number)
        ours = encoder.frames([row], [encoder.tap])[encoder.tap][0]
        given = theirs(row)
        if given.shape != ours.shape:
            raise UserError(f"the exported encoder gives {given.shape} for {steps} steps, ours {ours.shape}.")
        difference = np.abs(given - ours)
        worst = max(worst, float(difference.max()) if np.isfinite(difference).all() else math.inf)
        largest = max(largest, float(np.abs(ours).max()))
        lengths.append(steps)
    return worst, largest, lengths


def trial_row(spec: SampleSpec, steps: int, seed: int) -> Shaped[np.ndarray, "t *c"]:
    """A row of random values, or ids."""
    rng, shape = np.random.default_rng(seed), (steps,) if spec.channels is None else (steps, spec.channels)
    if spec.vocab_size is not None:
        return rng.integers(spec.vocab_size, size=shape)
    values: np.ndarray = (0.1 * rng.normal(size=shape)).astype(np.float32)
    return values


class OneRow(nn.Module):
    """The encoder as a function of one row's inputs alone: frames (1, s, d) of a tap."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.model, self.tap, self.missing_id = encoder.model, encoder.tap, encoder.spec.missing_id

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode (1, t) or (1, t, c), without gaps; an id that stands for a missing one is read as such."""
        lengths = torch.full((1,), inputs.shape[1], dtype=torch.long)
        observed = None if self.missing_id is None else inputs != self.missing_id
        frames: Tensor = self.model.encode(Batch(inputs, lengths, observed=observed), self.tap).x
        return frames


def _onnx(run: str | Path, encoder: Encoder, folder: Path) -> Run:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch wants it)
    except ImportError as error:
        raise UserError(f"{error}: pip install 'seqssl[onnx]'.") from error
    row = torch.from_numpy(trial_row(encoder.spec, math.ceil(FRAMES[0] * encoder.model.stride), 0))[None]
    path = folder / "encoder.onnx"
    with torch.no_grad():
        program = torch.onnx.export(
            OneRow(encoder).eval(), (row,), dynamo=True, verbose=False,
            dynamic_shapes={"inputs": {1: torch.export.Dim.DYNAMIC(min=row.shape[1])}},
            input_names=["inputs"], output_names=["frames"],
        )  # fmt: skip
    assert program is not None
    program.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda given: np.asarray(session.run(None, {"inputs": given[None]})[0])[0]


def _safetensors(run: str | Path, encoder: Encoder, folder: Path) -> Run:
    config, source = find_run(run)
    reads_codes = config.context == "quantized"  # the quantizer is then a part of the encoder
    kept = {
        name: x.contiguous()
        for name, x in weights_of(encoder.model).items()
        if not is_head(name) or (reads_codes and name.startswith("targets."))
    }
    save_file(kept, folder / "encoder.safetensors")
    shutil.copyfile(source / "config.yaml", folder / "config.yaml")
    model = build_model(config)
    set_scaling(model, read_provenance(source).get("statistics"))
    model.load_state_dict(load_file(folder / "encoder.safetensors"), strict=False)
    again = Encoder(model, encoder.spec, tap=encoder.tap, batch_inputs=encoder.batch_inputs)
    return lambda given: again.frames([given], [again.tap])[again.tap][0]


def _hugging_face(run: str | Path, encoder: Encoder, folder: Path) -> Run:
    config, _ = find_run(run)
    twin = twin_of(config, encoder.spec)
    export_folder(twin, encoder.model.state_dict(), encoder.spec, folder)
    return read_folder(folder)
