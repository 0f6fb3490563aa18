"""What each command does; one function per entry of `seqssl.cli.COMMANDS`, of the same name."""

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from seqssl.cli.terminal import show, show_progress
from seqssl.config import compose, files, tree
from seqssl.config.addresses import is_remote
from seqssl.config.values import Value
from seqssl.errors import UserError

if TYPE_CHECKING:
    from seqssl.data.adapters import ModalityAdapter

HALTED = 3
AUTO = "auto"  # a recipe that is chosen by looking at the data


class Arguments(Protocol):
    """What the command line hands over."""

    overrides: list[str]

    def __getitem__(self, name: str) -> Any:
        """The value of a key, its default where it was not given."""
        ...


def train(arguments: Arguments) -> None:
    """Pre-train, or go on with a run."""
    name, overrides = arguments["recipe"] or _run_to_continue(arguments.overrides), arguments.overrides
    if name == AUTO:
        name, overrides = _chosen(overrides)
    resolved = resolved_recipe(name, overrides)
    from seqssl.cli.tables import run_tables
    from seqssl.planning.hardware import has_gpu
    from seqssl.runs.choosing import sized_by_data
    from seqssl.runs.stages import train_stages
    from seqssl.runs.train import train as run_training
    from seqssl.training.ranks import is_launched

    with show_progress() as progress:
        if resolved.note.startswith("size=auto") and has_gpu() and not is_launched():
            sized = sized_by_data(name, overrides, resolved.config, progress)
            if sized.config.size != resolved.config.size:
                print(sized.note, file=sys.stderr)
                resolved, overrides = sized, [*overrides, f"size={sized.config.size}"]
        config = resolved.config
        if resolved.stages:
            config = train_stages(name, *overrides, progress=progress)
        run = run_training(config, progress=progress)
    if os.environ.get("RANK", "0") == "0":
        show(run_tables(run.out, run.metrics, run.report, run.seconds))


def data(arguments: Arguments) -> None:
    """List the demo corpora, or get one."""
    from seqssl.data import catalog

    if arguments["action"] == "list":
        entries = catalog.list_corpora()
        width = 1 + max(len(entry.name) for entry in entries)
        for entry in entries:
            print(f"{entry.name:{width}}{entry.size}; {entry.license}\n{'':{width}}{entry.description}")
    elif arguments["action"] != "get":
        raise UserError(f"data: '{arguments['action']}' is not understood; say list or get NAME")
    elif not arguments["name"]:
        raise UserError("data get: which one? `seqssl data list` shows what there is")
    else:
        with show_progress() as progress:
            folder = catalog.get(arguments["name"], progress)
        print(folder)


def export(arguments: Arguments) -> None:
    """Write a run's encoder for other libraries."""
    from seqssl.runs.export import export as write

    found = write(
        existing(arguments["run"]), arguments["to"], arguments["out"],
        weights=arguments["weights"], stream=arguments["stream"],
    )  # fmt: skip
    print(
        f"written: {arguments['out']}, outputs of {found.tap} within {found.max_abs_difference:.2g} of ours, "
        f"rows of {', '.join(map(str, found.lengths))} steps (certificate.json)"
    )


def embed(arguments: Arguments) -> None:
    """Write frozen features to a file."""
    pool, out = arguments["pool"], Path(arguments["out"]).expanduser()
    from seqssl.evaluation.frozen import check_pool

    check_pool(pool)
    run, source = existing(arguments["run"]), located(arguments["source"])
    if out.suffix != ".parquet" or out.is_dir():
        raise UserError(f"out = {out}: name a file that ends in .parquet")
    if out.exists() and out.resolve() == Path(source).resolve():
        raise UserError(f"out = {out}: that is the source itself, which would be lost")
    from seqssl.data.rejections import told
    from seqssl.evaluation.embedding import write_embeddings
    from seqssl.runs.folder import load
    from seqssl.runs.sources import open_source

    stream = arguments["stream"]
    encoder = load(run, tap=arguments["tap"], weights=arguments["weights"], stream=stream)
    with show_progress() as progress:
        corpus, adapter = open_source(
            run, source, stream=stream, settings=modality_settings(arguments), progress=progress
        )
        write_embeddings(encoder, corpus, adapter, out, pool=pool, progress=progress)
    print(f"{out}: {len(corpus)} rows, {pool} of {encoder.dim} dimensions, tap {encoder.tap}")
    if text := told(corpus):
        print(text)


def info(arguments: Arguments) -> None:
    """Show what a run or recipe expects and holds."""
    resolved = resolved_recipe(arguments["subject"], arguments.overrides)
    from seqssl.cli.tables import info_tables
    from seqssl.planning.plan import stage_of

    waiting = stage_of(arguments["subject"], *arguments.overrides)
    show(info_tables(resolved.config, Path(arguments["subject"]).expanduser(), waiting))


def doctor(arguments: Arguments) -> int:
    """Show the health of a run; returns an exit code."""
    run = existing(arguments["run"])
    from seqssl.doctor import examine

    report = examine(run)
    print(report.render())
    return 0 if report.ok else HALTED


def report(arguments: Arguments) -> None:
    """Write a page about several runs."""
    names = [arguments["run"], *(arguments[f"run{number}"] for number in range(2, 9))]
    runs = [existing(name) for name in names if name is not None]
    out = Path(arguments["out"]).expanduser()
    if out.suffix != ".html" or out.is_dir():
        raise UserError(f"out = {out}: name a file that ends in .html")
    from seqssl.report.comparison import write_comparison

    print(f"open {write_comparison(runs, out)}")


def check(arguments: Arguments) -> int:
    """Run the contract checks on an adapter; returns an exit code."""
    source = brought(arguments["source"])
    adapter = adapter_of(arguments)
    from seqssl.testing import ChecksFailed, adapter_checks, check_adapter

    try:
        check_adapter(adapter, source)
    except ChecksFailed as failure:
        print(failure)
        return 2
    print(f"{arguments['modality']}: all {len(adapter_checks())} checks passed")
    return 0


def config(arguments: Arguments) -> None:
    """Print the resolved recipe."""
    resolved = resolved_recipe(arguments["recipe"], arguments.overrides)
    if not arguments["--origin"]:
        print(compose.to_yaml(resolved.config), end="")
        return
    for key, value in tree.leaves(asdict(resolved.config)):
        print(f"{key:40} {value!s:20} {resolved.origins[key]}")


def recipes(arguments: Arguments) -> None:
    """Print the recipes that there are."""
    for name, path in files.list_recipes().items():
        fields = files.header(path)
        if not fields:
            continue
        sizes = compose.sizes_of(path)
        print(f"{name}  ({path})")
        for field in ("paper", "expected", "hardware", "time", "verified"):
            if field in fields:
                print(f"    {field + ':':10} {fields[field]}")
        if sizes:
            print(f"    {'sizes:':10} {', '.join(sizes)}")


def resolved_recipe(name: str, overrides: list[str]) -> compose.Resolved:
    """The configuration of a recipe or run with its overrides; notes for the user go to stderr."""
    from seqssl.planning.plan import resolve

    resolved = resolve(name, *overrides)
    if resolved.note:
        print(resolved.note, file=sys.stderr)
    return resolved


def _run_to_continue(overrides: list[str]) -> str:
    """The folder `out`, if it holds a run to go on with, else `AUTO`; UserError where nothing is given."""
    given, _ = compose.parse_overrides(overrides)
    out = given.get("out")
    if out is not None and (Path(str(out)).expanduser() / "config.yaml").is_file():
        return str(out)
    if not _source_of(given):
        raise UserError(
            "train: recipe missing; say recipe=NAME (`seqssl recipes` shows what there is), or data=FOLDER "
            "to have one chosen"
        )
    return AUTO


def _source_of(given: Mapping[str, Value]) -> str:
    """The data that the command line names; "" for none."""
    data = given.get("data")
    return str(data.get("source") or "") if isinstance(data, Mapping) else ""


def _chosen(overrides: list[str]) -> tuple[str, list[str]]:
    """The recipe for the data of the command line, and all overrides for it; says what was chosen."""
    from seqssl.data.mirrors import bring
    from seqssl.runs.choosing import choose_recipe

    source = _source_of(compose.parse_overrides(overrides)[0])
    if not source:
        raise UserError("recipe = auto: say data=FOLDER, by which one is chosen")
    with show_progress() as progress:
        place = bring(source, progress)
    name, settings, sentence = choose_recipe(place)
    print(sentence, file=sys.stderr)
    return name, [*settings, *overrides]


def adapter_of(arguments: Arguments) -> "ModalityAdapter":
    """The adapter of a command's `modality`, with the settings that were given."""
    from seqssl.assembly import build_adapter

    return build_adapter({"target": arguments["modality"], **modality_settings(arguments)})


def modality_settings(arguments: Arguments) -> Mapping[str, Value]:
    """The `modality.KEY=value` arguments of a command, as keys and values."""
    given, problems = compose.parse_overrides(arguments.overrides)
    if problems:
        raise UserError("; ".join(f"{problem.key}: {problem.remedy}" for problem in problems))
    settings = given.get("modality")
    return settings if isinstance(settings, dict) else {}


def located(source: str) -> str:
    """A source: the address of one in an object store, or a path where something is; else UserError."""
    return source if is_remote(source) else str(existing(source))


def brought(source: str) -> Path:
    """The path of a source, which is brought into the cache where it lies in an object store."""
    if not is_remote(source):
        return existing(source)
    from seqssl.data.mirrors import bring

    with show_progress() as progress:
        return bring(source, progress)


def existing(text: str) -> Path:
    """A path, if something is there; else UserError."""
    path = Path(text).expanduser()
    if not path.exists():
        raise UserError(f"there is no file or folder {path}")
    return path
