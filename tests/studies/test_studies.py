"""Studies: what they run, that they go on, and what they say of claims that fail."""

from pathlib import Path

import numpy as np
import pytest
from toy import TOY
from tuned_toys import write_labelled

from seqssl import cli
from seqssl.data.adapters import Sample
from seqssl.errors import UserError
from seqssl.model.measures import mutual_information
from seqssl.studies import ablation, bases, collapse, running, transfer
from seqssl.studies.running import Plan, run_all
from seqssl.studies.units import NUM_UNITS, Units, write_units
from seqssl.testing import check_adapter


def test_units_are_what_they_say(tmp_path: Path) -> None:
    source = write_units(tmp_path / "units", num_rows=12)
    check_adapter(Units(), source)
    adapter = Units()
    samples: list[Sample] = [
        adapter.load({**r.read(), "group": r.group}, None) for r in adapter.records(source, "all")
    ]  # type: ignore[dict-item]
    labels = [str(s.label) for sample in samples for s in sample.segments or ()]
    assert len(set(labels)) <= NUM_UNITS
    for sample in samples:
        ends = [segment.end for segment in sample.segments or ()]
        assert ends[-1] == len(sample.values)
    pairs = np.zeros((NUM_UNITS, NUM_UNITS))
    for sample in samples:
        own = [int(str(s.label).split()[1]) for s in sample.segments or ()]
        np.add.at(pairs, (own[:-1], own[1:]), 1)
    assert mutual_information(pairs) > 0.5, "a unit tells about the next one"


def figures_of(value: float, folder: Path) -> dict[str, float]:
    """A trial that fails the second time that it is run."""
    folder.mkdir(parents=True)
    return {"value": value}


def test_finished_trials_are_not_run_again(tmp_path: Path) -> None:
    told: list[str] = []
    plans = [Plan(f"p{n}", {"value": float(n)}) for n in range(3)]
    found = run_all(figures_of, plans[:2], tmp_path / "x", jobs=1, say=told.append)
    assert found == {"p0": {"value": 0.0}, "p1": {"value": 1.0}}
    assert "about" in told[0] and "min left" in told[0]
    again = run_all(figures_of, plans, tmp_path / "x", jobs=1, say=told.append)
    assert again == {**found, "p2": {"value": 2.0}}
    assert len(told) == 3
    with pytest.raises(FileExistsError):
        run_all(figures_of, [Plan("p0", {"value": 9.0})], tmp_path / "x", jobs=1)


def test_collapse_from_one_end_to_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [c for c in collapse.combinations() if c["contrastive"] or c["pulls"]]
    assert len(collapse.combinations()) == 10
    page = collapse.collapse(tmp_path, updates=2, seeds=1, jobs=1, say=lambda text: None)
    lines = page.splitlines()
    assert sum(line.startswith("| contrastive") for line in lines) == 6
    assert sum(line.endswith(("| holds |", "| **fails** |", "| undecided |")) for line in lines) == 6
    assert len(chosen) == 8


def test_a_claim_that_fails_is_reported_as_such() -> None:
    figures = {figure: (1.0, 0.0) for figure in collapse.FIGURES}
    table = {collapse.name_of(chosen): figures for chosen in collapse.combinations()}
    verdicts = [claim.holds for claim in collapse.claims(table)]
    assert verdicts == [True, False, False, False, False, False], "all alike: only `at most 3 codes` holds"
    assert "**fails**" in running.claims_table(collapse.claims(table))


def test_the_variants_of_an_ablation() -> None:
    both, alone, scratch = (0.6, 0.01), (0.7, 0.01), (0.55, 0.01)
    table = {"both, split at 1 of 3": both, "both, split at 2 of 3": both, "contrastive only": alone}
    assert [claim.holds for claim in ablation.claims(table, scratch)] == [False, True, True]
    near = {**table, "contrastive only": (0.59, 0.01)}
    assert [claim.holds for claim in ablation.claims(near, scratch)] == [None, True, True]


def test_what_one_seed_says_is_undecided() -> None:
    assert running.is_above(running.mean_and_error([0.9]), running.mean_and_error([0.1])) is None
    assert "| undecided |" in running.claims_table([running.Claim("all", "nothing", None)])


def test_an_ablation_of_a_toy(tmp_path: Path) -> None:
    source = write_labelled(tmp_path / "waves", num_rows=36)
    settings = [text for text in TOY if not text.startswith(("modality", "train.", "encoder.taps"))]
    recipe = ["base/w2vbert", "size=tiny", "modality=tuned_toys:Labelled", f"data={source}", *settings]
    recipe += ["encoder.taps={contrastive: 1, output: 2}", "train.precision=float32"]
    page = ablation.ablation(
        tmp_path / "out", recipe=recipe, task=["classify"], updates=2, tuning=2, seeds=1, jobs=1,
        say=lambda text: None,
    )  # fmt: skip
    assert page.count("| both, split at 1 of 2 |") == 1
    assert "contrastive only" in page and page.count("| from scratch |") == 1
    with pytest.raises(UserError, match="there is no task named 'clasify'; did you mean 'classify'"):
        ablation.ablation(tmp_path / "other", recipe=recipe, task=["clasify"])
    assert not (tmp_path / "other").exists()


def test_the_matrix_of_a_transfer() -> None:
    recipes = ["wearables_w2vbert", "music_w2vbert"]
    found = {
        f"{a}-to-{b}-{seed}": {"metric": 0.5 if a == transfer.NOTHING else 0.8 if a == b else 0.4}
        for a in [*recipes, transfer.NOTHING]
        for b in recipes
        for seed in range(2)
    }
    page = transfer.page(found, recipes, 2)
    assert "| wearables | 0.800 ± 0.000 | 0.400 ± 0.000 |" in page
    assert "| nothing (from scratch) | 0.500 ± 0.000 | 0.500 ± 0.000 |" in page
    assert page.count("| holds |") == 2 and page.count("| **fails** |") == 2
    assert "its own kind of data beats scratch | +0.300 ± 0.000 | holds |" in page
    assert "| music: pre-training on other kinds helps, too (their mean) | -0.100 ± 0.000 |" in page


def test_transfer_compares_what_was_tested_alike() -> None:
    """Seeds differ by far more than sources do: a gain within each seed still counts."""
    recipes = ["wearables_w2vbert", "music_w2vbert"]
    found = {
        f"{a}-to-{b}-{seed}": {"metric": 0.2 + 0.5 * seed + (0.0 if a == transfer.NOTHING else 0.05)}
        for a in [*recipes, transfer.NOTHING]
        for b in recipes
        for seed in range(2)
    }
    assert transfer.page(found, recipes, 2).count("| holds |") == 4


def test_unknown_studies_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["study", "nothing", f"out={tmp_path}"]) == 2
    assert "expected collapse, ablation, transfer or bases" in capsys.readouterr().err
    assert cli.main(["study", "transfer", "recipes=speech_w2vbert", f"out={tmp_path}"]) == 2
    assert "expected two or more of" in capsys.readouterr().err


def test_bases_are_made_and_tried_elsewhere(tmp_path: Path) -> None:
    """One of two corpora makes the base; from it and from nothing, the other is fine-tuned."""
    home, away = (write_labelled(tmp_path / name, num_rows=24) for name in ("home", "away"))
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"# Elsewhere: classify | data.source={away}\n"
        "extends: base/w2vbert\nmodality: tuned_toys:Labelled\n"
        f"data: {{source: {home}, batch_frames: 160, split_by: record, valid_share: 0.2}}\n"
        "masking: {start_prob: 0.1, span: 3}\n"
        "sizes:\n"
        "  tiny:\n"
        "    quantizer: {codebook_size: 8, dim: 16}\n"
        "    mixer: {num_heads: 2}\n"
        "    encoder:\n"
        "      num_layers: 2\n"
        "      dim: 16\n"
        "      block: {ffn_dim: 16, conv_kernel: 3, conv_norm: layer}\n"
        "      position: {kernel: 4, groups: 2}\n"
        "      taps: {contrastive: 1, output: 2}\n"
    )
    told = list[str]()

    def run() -> str:
        return bases.bases(
            tmp_path / "out", recipes=[str(recipe)], updates=4, adapting=2, tuning=2, seeds=1, jobs=1,
            say=told.append,
        )  # fmt: skip

    page = run()
    assert "| mine, " in page and ": classify | " in page and page.count("beats") == 2
    assert (tmp_path / "out/bases/runs/mine-0/checkpoints/step-00000004").is_dir()
    assert len(told) == 1 + len(bases.STARTS)
    assert run() == page and len(told) == 1 + len(bases.STARTS)
    with pytest.raises(UserError, match="expected some of dna_masked_symbols, speech_clusters, weather"):
        bases.bases(tmp_path / "other", recipes=["music_w2vbert"])
