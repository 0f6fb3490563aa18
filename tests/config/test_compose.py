import textwrap
from pathlib import Path

import pytest

from seqssl import load_recipe
from seqssl.config import files
from seqssl.config.compose import to_yaml
from seqssl.errors import UserError
from seqssl.planning.plan import resolve

PARTS = """
from typing import Annotated
from seqssl.model.bounds import SHARE, Divides
class Adapter:
    def __init__(self, *, rate_hz: float = 50.0) -> None: ...

class Quantizer:
    def __init__(self, input_dim: int, *, knob: int = 3) -> None: ...

class Mixer:
    def __init__(
        self, dim: int, *, parts: Annotated[int, Divides("dim")] = 4, share: Annotated[float, SHARE] = 0.0,
        names: list[str] = (), scale: float = 1.0,
    ) -> None: ...

class Open:
    def __init__(self, dim: int, **settings: int) -> None: ...
"""

RECIPE = """
# Paper: none
# Expected: nothing,
#   really
extends: [base/first, base/second]
modality: my_parts:Adapter
data: {demo: none, batch_seconds: 10}
encoder: {num_layers: 4, dim: 32, block: {ffn_dim: 64}, taps: {output: 4}}
sizes:
  big: {encoder: {dim: 64}}
  small: {encoder: {dim: 16}, quantizer: {codebook_size: 8}}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with recipes of its own and a stranger's parts."""
    (tmp_path / "my_parts.py").write_text(PARTS)
    write(tmp_path, "recipes/base/first.yaml", "optim: {lr: 1.0, clip_norm: 5}\nseed: 7")
    second = """
    masking: span
    mixer: {target: attention, num_heads: 2}
    quantizer: {target: gumbel, num_codebooks: 2, dim: "${encoder.dim}"}
    optim: {lr: 2e-3}
    objectives:
      prediction: {target: masked_prediction, tap: output}
      diversity: diversity
    """
    write(tmp_path, "recipes/base/second.yaml", second)
    write(tmp_path, "recipes/mine.yaml", RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def message(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(*arguments)
    return str(caught.value)


def test_layers_lie_in_order() -> None:
    config = load_recipe("mine", "size=big")
    assert config.seed == 7
    assert (config.optim.lr, config.optim.clip_norm) == (2e-3, 5.0)
    assert config.encoder.dim == 64
    assert config.quantizer["dim"] == 64, "interpolated after the size and the overrides"
    assert load_recipe("mine", "size=big", "encoder.dim=48").quantizer["dim"] == 48
    assert (config.recipe, config.size) == ("mine", "big")


def test_defaults_of_components_are_written_out() -> None:
    config = load_recipe("mine", "size=big")
    assert config.modality == {"target": "my_parts:Adapter", "rate_hz": 50.0}
    assert config.masking["span"] == 10


def test_every_value_has_an_origin(here: Path) -> None:
    origins = resolve("mine", "size=small", "seed=3").origins
    assert origins["seed"] == "command line"
    assert origins["optim.lr"] == "recipes/base/second.yaml"
    assert origins["optim.clip_norm"] == "recipes/base/first.yaml"
    assert origins["encoder.dim"] == "recipes/mine.yaml, size=small"
    assert origins["encoder.block.ffn_dim"] == "recipes/mine.yaml"
    assert origins["quantizer.codebook_size"] == "recipes/mine.yaml, size=small"
    assert origins["masking.span"] == "default"
    assert origins["train.num_updates"] == "default"


@pytest.mark.parametrize(
    "overrides",
    [
        ("quantizer.target=my_parts:Quantizer",),
        ("quantizer=my_parts:Quantizer",),
        ("quantizer={target: 'my_parts:Quantizer'}",),
    ],
)
def test_a_changed_target_replaces_the_node(overrides: tuple[str, ...]) -> None:
    config = load_recipe("mine", "size=big", "objectives.diversity=null", *overrides)
    assert config.quantizer == {"target": "my_parts:Quantizer", "knob": 3}


def test_parameters_given_with_a_changed_target_count_in_any_order() -> None:
    for overrides in (
        ["quantizer=my_parts:Quantizer", "quantizer.knob=5"],
        ["quantizer.knob=5", "quantizer=my_parts:Quantizer"],
        ["quantizer.knob=5", "quantizer.target=my_parts:Quantizer"],
    ):
        config = load_recipe("mine", "size=big", "objectives.diversity=null", *overrides)
        assert config.quantizer == {"target": "my_parts:Quantizer", "knob": 5}


def test_the_same_target_keeps_its_parameters() -> None:
    assert load_recipe("mine", "size=big", "quantizer=gumbel").quantizer["num_codebooks"] == 2


def test_the_target_rule_holds_in_recipes_too(here: Path) -> None:
    write(
        here,
        "recipes/child.yaml",
        "extends: mine\nquantizer: my_parts:Quantizer\nobjectives: {diversity: null}",
    )
    config = load_recipe("child", "size=big")
    assert config.quantizer == {"target": "my_parts:Quantizer", "knob": 3}
    assert list(config.objectives) == ["prediction"]


@pytest.mark.parametrize("first", ["objectives", "sizes"])
def test_what_sizes_say_of_a_component_goes_with_it(here: Path, first: str) -> None:
    """A recipe may remove or replace what the recipe below it has settings for, size by size."""
    (here / "below.yaml").write_text(
        "extends: [base/run, base/w2vbert]\nmodality: speech\ndata: {demo: speech, batch_seconds: 60}\n"
        "sizes: {tiny: {objectives: {diversity: {weight: 9.0}, masked_prediction: {seen_weight: 0.25}}}}\n"
    )
    own = {
        "objectives": "objectives: {diversity: null, masked_prediction: {target: feature_penalty}}",
        "sizes": "sizes: {tiny: {objectives: {masked_prediction: {weight: 3.0}}}}",
    }
    second = own.pop("sizes" if first == "objectives" else "objectives")
    (here / "above.yaml").write_text(f"extends: [below]\n{own[first]}\n{second}\n")
    below = load_recipe(here / "below.yaml", "size=tiny").objectives
    assert below["masked_prediction"]["seen_weight"] == 0.25 and below["diversity"]["weight"] == 9
    above = load_recipe(here / "above.yaml", "size=tiny").objectives
    assert above["masked_prediction"] == {"target": "feature_penalty", "tap": "", "weight": 3.0}
    assert above.get("diversity") is None


def test_data_is_short_for_its_source() -> None:
    assert load_recipe("mine", "size=big", "data=/some/where").data.source == "/some/where"


@pytest.mark.parametrize("name", ["a #2", "#x", "a\t#2", "a#2", "C #sharp: new"])
def test_a_number_sign_is_part_of_a_name(name: str) -> None:
    """Before, YAML took the rest for a comment: another folder was read, or none."""
    assert load_recipe("mine", "size=big", f"data={name}").data.source == name
    assert load_recipe("mine", "size=big", f"out={name}").out == name
    quoted = load_recipe("mine", "size=big", f"data.valid_groups=['{name}', b]").data
    assert quoted.valid_groups == [name, "b"]


def test_values_are_read_as_yaml() -> None:
    config = load_recipe(
        "mine",
        "size=big",
        "optim.lr=1e-4",
        "optim.betas=[0.8, 0.9]",
        "train.compile=true",
        "health=off",
        "out=12",
    )
    assert config.optim.lr == 1e-4
    assert config.optim.betas == (0.8, 0.9)
    assert config.train.compile is True
    assert config.health == "off", "YAML 1.1 reads off as false"
    assert config.out == "12"


def test_all_problems_at_once_each_with_key_value_remedy_and_origin(here: Path) -> None:
    write(here, "recipes/bad.yaml", "extends: mine\nmasking: {spam: 1}\nencoder: {taps: {output: 9}}")
    overrides = """
        optim.lrr=1 quantizer.codebook_size=abc data.batch_frames=5 health=maybe mixer.num_heads=5 train=3
        seed=1.5 objectives.prediction.tap=outptu broken=[
    """.split()
    lines = message("bad", "size=big", *overrides).splitlines()
    expected = [
        ("optim.lrr = 1", "did you mean 'lr'?", "[command line]"),
        ("masking.spam = 1", "did you mean 'span'?", "[recipes/bad.yaml]"),
        ("quantizer.codebook_size = abc", "expected an integer", "[command line]"),
        ("data.batch_frames = 5", "either data.batch_seconds or data.batch_frames", "[command line]"),
        ("health = maybe", "off, warn, halt", "[command line]"),
        ("mixer.num_heads = 5", "must divide encoder.dim = 64", "[command line]"),
        ("encoder.taps.output = 9", "from 1 to encoder.num_layers = 4", "[recipes/bad.yaml]"),
        ("train = 3", "expected keys and values", "[command line]"),
        ("seed = 1.5", "expected an integer", "[command line]"),
        ("objectives.prediction.tap = outptu", "did you mean 'output'?", "[command line]"),
        ("broken = [", "not a YAML value", "[command line]"),
    ]
    assert lines[0] == f"{len(expected)} problems in the configuration:"
    for words in expected:
        assert any(all(word in line for word in words) for line in lines), words


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("lr=1", "did you mean 'optim.lr'?"),
        ("num_updates=1", "did you mean 'train.num_updates'?"),
        ("quantiser.dim=1", "did you mean 'quantizer'?"),
        ("modality.rate=1", "did you mean 'rate_hz'?"),
        ("optim.lr=-1", "must be above 0"),
        ("encoder.block.dropout=1", "below 1"),
        ("encoder.stochastic_depth=1", "below 1"),
        ("data.valid_share=2", "below 1"),
        ("data.batch_seconds=null", "set data.batch_seconds"),
        ("data.demo=null", "nothing to train on"),
        ("quantizer=random_projection", "remove it with objectives.diversity=null"),
        ("quantizer=null", "expected a target"),
        ("quantizer=gumble", "did you mean 'gumbel'?"),
        ("modality=nobody.knows:Me", "there is no module"),
        ("objectives=null", "expected named slots"),
        ("encoder.position.groups=7", "must divide encoder.dim = 64"),
        ("encoder.block.conv_kernel=4", "must be odd"),
        ("optim.name=sgd", "adam, adamw, adafactor"),
        ("foo", "expected key=value"),
        ("size=huge", "there is: auto, big, small"),
        ("encoder=3", "encoder = 3: expected keys and values"),
        ("encoder.block=none", "there is no block named 'none'"),
        ("encoder.block=null", "expected a target"),
        ("encoder.block.ffn=16", "did you mean 'ffn_dim'?"),
        ("encoder.block.ffn_dim=0", "encoder.block.ffn_dim = 0: must be above 0"),
        ("encoder.position=sinus", "there is no position named 'sinus'; there is: conv"),
        ("ffn_dim=16", "did you mean 'encoder.block.ffn_dim'?"),
        ("input_norm=layer", "there is no input_norm named 'layer'"),
        ("mixer.dropout=-0.1", "must be at least 0 and below 1"),
        ("mixer.position=sinus", "expected one of none, rotary, relative"),
        ("mixer={target: 'my_parts:Mixer', parts: 3}", "mixer.parts = 3: must divide encoder.dim = 64"),
        ("mixer={target: 'my_parts:Mixer', share: 1}", "must be at least 0 and below 1"),
        ("mixer={target: 'my_parts:Mixer', scale: .inf}", "must be a finite number"),
        ("mixer={target: 'my_parts:Open', anything: .nan}", "must be a finite number"),
        ("optim.betas=[0.9, 1]", "optim.betas = (0.9, 1.0): each must be at least 0 and below 1"),
        ("seed=-1", "must be at least 0 and below 2**63"),
        ("temperature.decay=2", "the temperature must fall"),
        ("temperature.end=3", "must be at most temperature.start = 2"),
        ("train.eval_batches=0", "must be above 0"),
        ("context=both", "expected one of features, quantized"),
        ("init=[a]", "expected a text or null"),
        ("task=pretrian", "there is no task named 'pretrian'"),
        ("seed=${shell:ls}", "a recipe takes nothing from outside"),
        ("quantizer.dim=${encoder.dims}", "did you mean 'encoder.dim'?"),
    ],
)
def test_a_problem_says_what_to_do(override: str, words: str) -> None:
    text = message("mine", *(["size=big"] if not override.startswith("size") else []), override)
    assert words in text
    assert len(text.splitlines()) <= 2, "one mistake, one problem"


@pytest.mark.parametrize(
    "override",
    ["optim.lr=.nan", "optim.lr=.inf", "optim.betas=[.nan,0.9]", "temperature.start=-.inf",
     "objectives.masked_prediction.seen_weight=.nan", "objectives.contrastive.weight=.inf",
     "optim.clip_norm=.nan"],
)  # fmt: skip
def test_numbers_are_finite(override: str) -> None:
    with pytest.raises(UserError, match="must be a finite number"):
        load_recipe("speech_w2vbert", "size=tiny", override)


def test_clipping_may_be_off() -> None:
    assert load_recipe("speech_w2vbert", "size=tiny", "optim.clip_norm=.inf").optim.clip_norm == float("inf")


def test_a_recipe_that_does_not_exist() -> None:
    assert "did you mean 'mine'?" in message("mien")
    assert "base/first" in message("something-else-entirely")


def test_recipes_are_found_by_path_in_the_folder_and_in_the_package(here: Path) -> None:
    elsewhere = write(here, "elsewhere/own.yaml", "extends: [mine, sibling]\nseed: 1")
    write(here, "elsewhere/sibling.yaml", "size: small")
    assert load_recipe(elsewhere).recipe == "own"
    assert load_recipe("elsewhere/own.yaml").size == "small"
    assert "base/w2vbert" in files.list_recipes()


def test_extends_goes_two_levels_deep(here: Path) -> None:
    write(here, "recipes/two.yaml", "extends: mine")
    write(here, "recipes/three.yaml", "extends: two")
    assert load_recipe("two", "size=big").seed == 7
    assert "more than 2 levels" in message("three", "size=big")


def test_a_recipe_that_extends_itself_ends(here: Path) -> None:
    write(here, "recipes/self.yaml", "extends: self")
    assert "more than 2 levels" in message("self")


@pytest.mark.parametrize("text", ["a: [", "- 1", "just text", "sizes: 3\nextends: base/second"])
def test_a_broken_file(here: Path, text: str) -> None:
    write(here, "recipes/broken.yaml", text)
    assert "broken" in message("broken")


def test_an_interpolation_of_nothing(here: Path) -> None:
    write(here, "recipes/child.yaml", 'extends: mine\nseed: "${encoder.dims}"')
    assert "encoder.dims" in message("child", "size=big")


def test_a_saved_run_is_a_recipe(here: Path) -> None:
    config = load_recipe("mine", "size=big", "data=/x", "out=runs/one")
    text = to_yaml(config) + "provenance:\n  commit: abc\n"
    write(here, "runs/one/config.yaml", text)
    assert load_recipe("runs/one") == config
    assert load_recipe("runs/one/config.yaml", "size=big") == config
    assert load_recipe("runs/one", "optim.lr=3").optim.lr == 3
    assert "no such size" in message("runs/one", "size=small")


def test_auto_takes_a_small_size_on_a_cpu_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqssl.planning.plan.has_gpu", lambda: False)
    for cores, size in ((2, "small"), (64, "big")):
        monkeypatch.setattr("seqssl.planning.plan.num_cores", lambda cores=cores: cores)
        resolved = resolve("mine")
        assert resolved.config.size == size
        assert f"chose {size}" in resolved.note
        assert "size=big|small" in resolved.note


def test_header() -> None:
    assert files.header(Path("recipes/mine.yaml")) == {}, "a blank line comes first"
    path = Path("recipes/headed.yaml")
    path.write_text(RECIPE.lstrip())
    assert files.header(path) == {"paper": "none", "expected": "nothing, really"}


NAMES = ["010", "no", "1e3", "null", "3", "2024-01-02", "x"]


def test_names_stay_the_text_that_was_written(here: Path) -> None:
    """YAML would read 010 as 8, no as false, 1e3 as 1000.0."""
    written = f"[{', '.join(NAMES)}]"
    mixer = f"mixer={{target: 'my_parts:Mixer', names: {written}}}"
    config = load_recipe("mine", "size=big", f"data.valid_groups={written}", "out=010", "data=1e3", mixer)
    assert config.data.valid_groups == config.mixer["names"] == NAMES
    assert (config.out, config.data.source) == ("010", "1e3")
    write(
        here, "recipes/named.yaml", f"extends: mine\ndata: {{valid_groups: {written}, demo: no}}\nseed: 010"
    )
    config = load_recipe("named", "size=small")
    assert (config.data.valid_groups, config.data.demo, config.seed) == (NAMES, "no", 8)
    write(here, "runs/named/config.yaml", to_yaml(config) + "provenance: {}\n")
    assert load_recipe("runs/named") == config


def test_a_reference_to_a_name_is_that_name() -> None:
    config = load_recipe("mine", "size=big", "data.demo=010", "out=runs/${data.demo}", "init=${data.demo}")
    assert (config.out, config.init) == ("runs/010", "010")


def test_none_empties_a_slot_that_may_be_empty(here: Path) -> None:
    for empty in ("none", "null"):
        overrides = ("input_norm=channel", f"input_norm={empty}", f"encoder.position={empty}")
        config = load_recipe("mine", "size=big", "encoder.feature_norm=layer", *overrides)
        assert config.input_norm is None and config.encoder.position is None
        assert config.encoder.feature_norm == {"target": "layer", "affine": False}
    write(here, "recipes/child.yaml", "extends: [base/run, base/w2vbert]\nencoder: {position: none}\n"
          "modality: speech\ndata: {demo: x, batch_frames: 9}")  # fmt: skip
    assert load_recipe("child", "size=tiny").encoder.position is None, "nor does a size bring it back"


def test_a_block_is_exchanged_like_any_component() -> None:
    block = "encoder.block={target: transformer, ffn_dim: 16}"
    config = load_recipe("mine", "size=big", block)
    assert "conv_kernel" not in config.encoder.block
    assert config.encoder.block.items() >= {"target": "transformer", "ffn_dim": 16, "dropout": 0.0}.items()
    config = load_recipe("mine", "size=big", "encoder.block.conv_kernel=3")
    assert config.encoder.block["conv_kernel"] == 3 and config.encoder.block["ffn_dim"] == 64


def test_what_a_text_does_not_tell_is_checked_when_it_is_built() -> None:
    config = load_recipe("mine", "size=big", "mixer={target: 'my_parts:Open', anything: 010}")
    assert config.mixer == {"target": "my_parts:Open", "anything": 8}


def test_a_run_has_a_task_without_a_word() -> None:
    config = load_recipe("mine", "size=big")
    assert config.task["target"] == "pretrain" and config.init is None and config.context == "features"
    assert config.encoder.condition is None


def test_the_problem_of_a_reference_is_one_of_all() -> None:
    text = message("mine", "size=big", "seed=${nothing.there}", "optim.lr=-1")
    assert text.startswith("2 problems")
    assert "seed = ${nothing.there}: there is no key nothing.there  [command line]" in text


@pytest.mark.parametrize(
    ("overrides", "is_read"),
    [
        ((), True),
        (("data.source=my_folder",), False),
        (("data.demo=speech",), False),
        (("data.demo=wearables",), True),
    ],
)
def test_what_a_recipe_says_of_its_demo_is_not_said_of_other_data(
    here: Path, overrides: tuple[str, ...], is_read: bool
) -> None:
    own = resolve("wearables_w2vbert", "size=tiny", *overrides)
    joint = resolve("joint_w2vbert", "size=tiny", *(f"streams.wearables.{text}" for text in overrides))
    for modality in (own.config.modality, joint.config.streams["wearables"].modality):
        assert (modality["gyroscope"], modality["source_rate_hz"]) == (
            (True, 50) if is_read else (False, None)
        )
    assert (
        resolve("wearables_w2vbert", "size=tiny", "modality.gyroscope=false").config.modality["gyroscope"]
        is False
    )
    origin = own.origins["modality.gyroscope"]
    assert origin.endswith("recipes/wearables_w2vbert.yaml, demo corpus" if is_read else "default")
