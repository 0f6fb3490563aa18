"""Which losses keep the codes from collapsing? Every combination, on sequences whose units are known.

The referee is the mutual information between codes and true units, as a share of the units' entropy (PNMI),
on held-out groups. It cannot be fooled by a low loss.
"""

from itertools import product
from pathlib import Path
from typing import Any

from seqssl.planning.plan import resolve
from seqssl.runs.train import train
from seqssl.studies.running import Claim, Plan, Say, claims_table, is_above, mean_and_error, run_all, told
from seqssl.studies.units import write_units

NUM_UPDATES = 480
NUM_SEEDS = 3
NUM_CODES = 32
COLLAPSED = 3.0  # codes in use, as the perplexity says, at or below which codes have collapsed
FORMATS = (".3g", ".2g")  # of a mean and its error
FIGURES = ("pnmi", "perplexity", "frames", "rank")
SETTINGS = (
    "size=tiny",
    "modality=seqssl.studies.units:Units",
    "data.split_by=group",
    "data.valid_share=0.34",
    "data.batch_frames=2400",
    "masking.start_prob=0.12",
    "masking.span=4",
    f"quantizer.codebook_size={NUM_CODES}",
    "quantizer.dim=48",
    "mixer.num_heads=2",
    "encoder.num_layers=3",
    "encoder.dim=48",
    "encoder.block.ffn_dim=96",
    "encoder.block.conv_kernel=5",
    "encoder.position.kernel=8",
    "encoder.position.groups=4",
    "encoder.taps={contrastive: 1, output: 3}",
    "optim.lr=0.003",
    "optim.warmup_updates=50",
    "optim.schedule=cosine",
    "optim.clip_norm=5",
    "train.precision=float32",
    "train.device=cpu",
    "train.trackers=[]",
    "health=off",
    "task.probes=[pnmi,accuracy,rank]",
)


def combinations() -> list[dict[str, bool]]:
    """Every choice of losses that leaves something to learn, also with prediction that pulls on codes."""
    found = []
    for contrastive, prediction, diversity in product((True, False), repeat=3):
        if contrastive or prediction:
            chosen = {"contrastive": contrastive, "prediction": prediction, "diversity": diversity}
            found.append({**chosen, "pulls": False})
            if prediction:
                found.append({**chosen, "pulls": True})
    return found


def name_of(chosen: dict[str, Any]) -> str:
    """A combination in words."""
    parts = [name for name in ("contrastive", "prediction", "diversity") if chosen[name]]
    return "+".join(parts) + ("-pulls" if chosen["pulls"] else "")


def trial(source: str, seed: int, updates: int, chosen: dict[str, bool], folder: Path) -> dict[str, float]:
    """One run; the figures of its held-out groups."""
    own = [f"data.source={source}", f"out={folder}", f"seed={seed}", f"train.num_updates={updates}"]
    own += [f"train.{name}_every={updates}" for name in ("log", "eval", "save")]
    if not chosen["contrastive"]:
        own.append("objectives.contrastive=null")
    if not chosen["diversity"]:
        own.append("objectives.diversity=null")
    if chosen["prediction"]:
        own.append(f"objectives.masked_prediction.pulls={str(chosen['pulls']).lower()}")
    else:
        own.append("objectives.masked_prediction=null")
    run = train(resolve("base/w2vbert", *SETTINGS, *own).config, say=None)
    metrics = run.metrics
    return {
        "pnmi": metrics["probe/pnmi_codes"],
        "perplexity": metrics["perplexity/hard_0"],
        "frames": metrics["probe/accuracy_output"],
        "rank": metrics["probe/rank_output"],
    }


def collapse(
    out: Path,
    *,
    updates: int = NUM_UPDATES,
    seeds: int = NUM_SEEDS,
    jobs: int = 0,
    say: Say = print,
) -> str:
    """Run the study, or what is left of it; the page that it writes, in Markdown."""
    source = out / "units"
    if not source.exists():
        write_units(source)
    plans = [
        Plan(
            f"{name_of(chosen)}-{seed}",
            {"source": str(source), "seed": seed, "updates": updates, "chosen": chosen},
        )
        for chosen in combinations()
        for seed in range(seeds)
    ]
    found = run_all(trial, plans, out / "trials", jobs=jobs, say=say)
    table = {
        name_of(chosen): {
            figure: mean_and_error([found[f"{name_of(chosen)}-{seed}"][figure] for seed in range(seeds)])
            for figure in FIGURES
        }
        for chosen in combinations()
    }
    lines = [
        f"| losses | PNMI | perplexity (of {NUM_CODES} codes) | frames told apart | effective rank |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, figures in table.items():
        cells = [told(figures[figure], *FORMATS) for figure in FIGURES]
        lines.append(f"| {name.replace('+', ' + ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n" + claims_table(claims(table))


def claims(table: dict[str, dict[str, tuple[float, float]]]) -> list[Claim]:
    """What the paper and its review say, and what was found."""

    def of(name: str, figure: str) -> float:
        return table[name][figure][0]

    def said(name: str, figure: str) -> str:
        return told(table[name][figure], *FORMATS)

    def above(name: str, other: str, figure: str) -> bool | None:
        return is_above(table[name][figure], table[other][figure])

    whole, alone = "contrastive+prediction+diversity", "prediction"
    pulled, pulled_even = "prediction-pulls", "prediction+diversity-pulls"
    return [
        Claim(
            "Masked prediction alone, free to pull on the quantizer, collapses the codes",
            f"perplexity {said(pulled, 'perplexity')} of {NUM_CODES}, PNMI {said(pulled, 'pnmi')}",
            of(pulled, "perplexity") <= COLLAPSED,
        ),
        Claim(
            "Diversity alone does not save such codes: they say less about the units",
            f"PNMI {said(pulled_even, 'pnmi')} against {said(whole, 'pnmi')} with the contrastive loss",
            above(whole, pulled_even, "pnmi"),
        ),
        Claim(
            "Without the contrastive loss the codes say less about the units",
            f"PNMI {said(alone, 'pnmi')} (prediction alone) against {said(whole, 'pnmi')} (all three)",
            above(whole, alone, "pnmi"),
        ),
        Claim(
            "The diversity loss keeps more codes in use",
            f"perplexity {said(whole, 'perplexity')} with it, "
            f"{said('contrastive+prediction', 'perplexity')} without",
            above(whole, "contrastive+prediction", "perplexity"),
        ),
        Claim(
            "Masked prediction beside the contrastive loss makes better frames",
            f"frames told apart {said(whole, 'frames')} with it, "
            f"{said('contrastive+diversity', 'frames')} without",
            above(whole, "contrastive+diversity", "frames"),
        ),
        Claim(
            "Letting masked prediction pull on the quantizer hurts even beside the other two losses",
            f"PNMI {said(whole + '-pulls', 'pnmi')} against {said(whole, 'pnmi')}",
            above(whole, whole + "-pulls", "pnmi"),
        ),
    ]
