"""What the commands do that tune or judge: `finetune`, `predict`, `evaluate`, `compare`, `study`, `bench`."""

import os
import sys
import time
from pathlib import Path

from seqssl.cli.commands import Arguments, brought, existing, modality_settings
from seqssl.cli.terminal import show, show_progress
from seqssl.errors import UserError


def finetune(arguments: Arguments) -> None:
    """Tune an encoder for a task, or go on with it."""
    from seqssl.cli.tables import run_tables
    from seqssl.runs.finetune import configuration
    from seqssl.runs.train import train

    config = configuration(
        existing(arguments["run"]),
        arguments["task"],
        *arguments.overrides,
        data=arguments["data"],
        init=arguments["init"],
        out=arguments["out"],
        stream=arguments["stream"],
    )
    with show_progress() as progress:
        run = train(config, progress=progress)
    if os.environ.get("RANK", "0") == "0":
        show(run_tables(run.out, run.metrics, run.report, run.seconds))


def predict(arguments: Arguments) -> None:
    """Write what a tuned run says of data."""
    from seqssl.data.rejections import told
    from seqssl.runs.predict import check_out, write_predictions
    from seqssl.runs.predict import predict as predictions
    from seqssl.runs.sources import open_source

    run, out = existing(arguments["run"]), Path(arguments["out"]).expanduser()
    check_out(out)
    source = Path(arguments["source"]).expanduser()
    if out.exists() and source.exists() and out.resolve() == source.resolve():
        raise UserError(f"out = {out}: that is the source itself, which would be lost")
    from seqssl.runs.folder import load_task

    task = load_task(run, weights=arguments["weights"])
    with show_progress() as progress:
        corpus, adapter = open_source(
            run, arguments["source"], settings=modality_settings(arguments), progress=progress
        )
        rows = predictions(task, corpus, adapter, progress=progress)
    for text in task.notes:
        print(text)
    write_predictions(rows, out)
    print(f"{out}: {len(rows)} rows with {', '.join([*rows[0]][2:])}")
    if text := told(corpus):
        print(text)


def evaluate(arguments: Arguments) -> None:
    """Measure what an encoder is worth."""
    from seqssl.ruler.evaluate import evaluate as measure
    from seqssl.ruler.plan import Request
    from seqssl.ruler.table import markdown

    request = Request(
        fractions=numbers("fractions", arguments["fractions"]),
        seeds=arguments["seeds"],
        folds=arguments["folds"],
        rows=[name.strip() for name in arguments["rows"].split(",")],
        metric=arguments["metric"],
        rates=numbers("lrs", arguments["lrs"]),
        jobs=arguments["jobs"],
    )
    with show_progress() as progress:
        values = measure(
            existing(arguments["run"]),
            arguments["task"],
            *arguments.overrides,
            request=request,
            data=arguments["data"],
            out=arguments["out"],
            stream=arguments["stream"],
            progress=progress,
        )
    print(f"\n{markdown(values)}\n{values['worth']['sentence']}")
    print(f"every figure, and pictures: {values['folder']}/report.html, evaluation.json, evaluation.md")


def evening(arguments: Arguments) -> None:
    """Pre-train for some hours, and judge it."""
    from seqssl.report.evening import verdict
    from seqssl.studies.evening import PAGE
    from seqssl.studies.evening import evening as spend

    with show_progress() as progress:
        values = spend(
            brought(arguments["data"]),
            Path(arguments["out"]).expanduser(),
            *arguments.overrides,
            recipe=arguments["recipe"],
            labels=arguments["labels"],
            hours=arguments["hours"],
            progress=progress,
        )
    print(f"\n{verdict(values)[0]}\nthe page: {values['out']}/{PAGE}")


def numbers(name: str, text: str) -> list[float]:
    """The numbers of `[a, b]`, or of one number; UserError for anything else."""
    try:
        return [float(part) for part in text.strip().removeprefix("[").removesuffix("]").split(",")]
    except ValueError as error:
        raise UserError(f"{name} = {text}: expected numbers, such as [0.1,1].") from error


def compare(arguments: Arguments) -> None:
    """Compare recipes, and write what was found."""
    from seqssl.config.text import names_in
    from seqssl.studies.compare import compare as run

    for key, least in (("seeds", 1), ("jobs", 0)):
        if arguments[key] < least:
            raise UserError(f"{key} = {arguments[key]}: must be at least {least}")
    out = Path(arguments["out"]).expanduser()
    began = time.monotonic()
    found = run(
        out,
        recipes=names_in(arguments["recipes"]),
        settings=arguments.overrides,
        task=arguments["task"].split(),
        frames=arguments["frames"],
        budget=arguments["budget"],
        seeds=arguments["seeds"],
        jobs=arguments["jobs"],
    )
    _written(out, found, began)


def bench(arguments: Arguments) -> None:
    """Measure the speed of a recipe."""
    import json

    from seqssl.config.text import names_in
    from seqssl.data.files import write_atomic
    from seqssl.interop.peers import DEFAULT
    from seqssl.runs.folder import git_commit
    from seqssl.studies.bench import bench as measure
    from seqssl.studies.bench import page
    from seqssl.studies.steps import PRECISIONS, Work

    for key, least in (("rows", 1), ("repeats", 1)):
        if arguments[key] < least:
            raise UserError(f"{key} = {arguments[key]}: must be at least {least}")
    precisions = names_in(arguments["precisions"] or "")
    if not set(precisions) <= set(PRECISIONS):
        expected = f"{', '.join(PRECISIONS)} or {','.join(PRECISIONS)}"
        raise UserError(f"precisions = {arguments['precisions']}: expected {expected}")
    recipe, *settings = [arguments["recipe"]] if arguments["recipe"] else DEFAULT
    work = Work(recipe, (*settings, *arguments.overrides), arguments["rows"], arguments["length"])
    out = Path(arguments["out"]).expanduser() if arguments["out"] else None
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    with show_progress() as progress:
        values = measure(
            work, repeats=arguments["repeats"], precisions=precisions, say=tell, progress=progress
        )
    values |= {"date": time.strftime("%Y-%m-%d"), "commit": git_commit() or "-"}
    about = f"{values['date']}, commit {values['commit']}."
    print(f"\n{page(values)}\n{about}")
    if out is not None:
        write_atomic(out / "bench.json", json.dumps(values, indent=1) + "\n")
        write_atomic(out / "bench.md", f"{page(values)}\n{about}\n")
        print(f"written: {out / 'bench.md'}, bench.json")


def tell(text: str) -> None:
    """Say how far a long measurement is, apart from its result."""
    print(text, file=sys.stderr)


def _written(out: Path, found: str, began: float) -> None:
    """Write the page of a study, with the machine, date and time, and show it."""
    from seqssl.data.files import write_atomic
    from seqssl.ruler.executor import hardware
    from seqssl.runs.folder import git_commit

    minutes = (time.monotonic() - began) / 60
    about = f"{hardware()}, {time.strftime('%Y-%m-%d')}, commit {git_commit() or '-'}, {minutes:.1f} min."
    write_atomic(out / "report.md", f"{found}\n{about}\n")
    print(f"\n{found}\n{about}\nwritten: {out / 'report.md'}")


def study(arguments: Arguments) -> None:
    """Run a study, and write what it found."""
    name = arguments["name"]
    if name not in ("collapse", "ablation", "transfer", "bases"):
        raise UserError(f"study: there is no study {name!r}; expected collapse, ablation, transfer or bases.")
    for key, least in (("updates", 1), ("seeds", 1), ("jobs", 0)):
        if arguments[key] is not None and arguments[key] < least:
            raise UserError(f"{key} = {arguments[key]}: must be at least {least}")
    out = Path(arguments["out"] or f"studies/{name}").expanduser()
    out.mkdir(parents=True, exist_ok=True)
    settings = {key: arguments[key] for key in ("updates", "seeds", "jobs") if arguments[key] is not None}
    began = time.monotonic()
    if name == "collapse":
        from seqssl.studies.collapse import collapse

        found = collapse(out, **settings)
    elif name == "ablation":
        from seqssl.studies.ablation import ablation
        from seqssl.studies.transfer import task_of

        name = arguments["recipe"] or ""
        task = (arguments["task"] or "").split() or (task_of(name) if name else [])
        if not name or not task:
            raise UserError(
                "study ablation: recipe=NAME is missing, or the recipe does not say what it is judged by: "
                "task='classify task.labels=...'."
            )
        kept = [setting for setting in task if not setting.startswith("modality.")]
        recipe = [name, "size=tiny", *(setting for setting in task if setting not in kept)]
        found = ablation(out, recipe=recipe, task=kept, **settings)
    elif name == "bases":
        from seqssl.studies.bases import bases, tried

        recipes = arguments["recipes"].split(",") if arguments["recipes"] else tried()
        found = bases(out, recipes=recipes, **settings)
    else:
        from seqssl.studies.transfer import judged, transfer

        recipes = arguments["recipes"].split(",") if arguments["recipes"] else judged()
        if len(recipes) < 2 or any(recipe not in judged() for recipe in recipes):
            raise UserError(f"recipes = {','.join(recipes)}: expected two or more of {', '.join(judged())}.")
        found = transfer(out, recipes=recipes, **settings)
    _written(out, found, began)
