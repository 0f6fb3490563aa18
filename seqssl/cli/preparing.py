"""The command `prepare`: raw files to shards, here or on a cluster, as a whole or in parts."""

from seqssl.cli.commands import Arguments, adapter_of
from seqssl.cli.terminal import show_progress
from seqssl.config.addresses import inside, is_remote


def prepare(arguments: Arguments) -> None:
    """Turn raw files into shards."""
    adapter = adapter_of(arguments)
    from seqssl.config.text import names_in
    from seqssl.data.checks import QUALITY
    from seqssl.data.mirrors import bring
    from seqssl.data.parts import Part, said_of
    from seqssl.data.prepare import prepare as write_shards
    from seqssl.data.shards import Corpus
    from seqssl.data.staging import staged
    from seqssl.report.prepared import amounts, summary, write_page

    source, out = arguments["source"], arguments["out"]
    part = Part.read(arguments["part"]) if arguments["part"] else None
    with show_progress() as progress, staged(out, part, progress) as stage:
        folder = stage.folder
        manifest = write_shards(
            adapter,
            bring(source, progress),
            folder,
            modality=arguments["modality"],
            split_by=arguments["split_by"],
            valid_share=arguments["valid_share"],
            valid_groups=names_in(arguments["valid_groups"] or ""),
            seed=arguments["seed"],
            num_workers=arguments["workers"],
            executor=arguments["executor"],
            part=part,
            origin=source if is_remote(source) else "",
            elsewhere=stage.elsewhere,
            progress=progress,
        )
        lines: list[tuple[str, str]]
        if part:
            lines = [(f"part {part}", said_of(manifest))]
        elif all((folder / shard.name).is_file() for shard in manifest.shards):
            lines = summary(Corpus(folder), adapter)
            if (folder / QUALITY).exists():
                lines.append(("what was noticed in each file", inside(out, QUALITY)))
            lines.append(("look at it", inside(out, write_page(folder, adapter).name)))
        else:  # the shards of parts, and they are in the store
            lines = [*amounts(manifest), ("joined", f"{len(manifest.shards):,} shards in {out}")]
    for title, text in lines:
        print(f"{title}: {text}")
