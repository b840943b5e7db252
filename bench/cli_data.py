"""The commands that make data: ``phantom`` and ``prepare``."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.cli_common import print_next, progress_bars, resumable
from bench.progress import say
from fusion.errors import UserError

Folder = Annotated[Path, typer.Argument(help="Folder to write; made if missing.", show_default=False)]


def phantom(
    out: Folder,
    scale: Annotated[
        float, typer.Option(help="Share of the paper's counts; 1.0 writes 3,338 images and scans.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(help="The same seed writes the same bytes.")] = 0,
    workers: Annotated[
        int | None, typer.Option(help="Processes; by default one for each core.", show_default=False)
    ] = None,
) -> None:
    """Write synthetic raw data in the formats of BUSI, OASBUD and RSNA.

    Phantoms are physical sketches, not patients: they prove that everything works, and say so in every table.
    """
    from fusion.sources.phantom import write_phantom

    with progress_bars() as bars:
        counts = write_phantom(
            out, scale=scale, seed=seed, workers=workers, progress=lambda d, t: bars.stage("write phantoms", d, t)
        )
    say(f"{out}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    print_next(f"fusebench prepare data/NAME --busi {out}/busi --oasbud {out}/oasbud/OASBUD.mat --rsna {out}/rsna")


def prepare(
    out: Folder,
    busi: Annotated[Path | None, typer.Option(help="Folder Dataset_BUSI_with_GT.", show_default=False)] = None,
    oasbud: Annotated[Path | None, typer.Option(help="File OASBUD.mat.", show_default=False)] = None,
    rsna: Annotated[
        Path | None, typer.Option(help="Folder with train.csv and train/, or the like.", show_default=False)
    ] = None,
    folder: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=DIR, any other set: class folders or a csv (path,label[,group,modality]).", show_default=False
        ),
    ] = None,
    image_size: Annotated[int, typer.Option(help="Side of the prepared images in pixels; the paper uses 300.")] = 300,
    negatives: Annotated[int, typer.Option(help="RSNA images without cancer to draw; the paper has 1200.")] = 1200,
    seed: Annotated[int, typer.Option(help="Draws the RSNA negatives.")] = 0,
    oasbud_groups: Annotated[
        str, typer.Option(help="patient (by the letters of the id, safer) or lesion.")
    ] = "patient",
    allow_ungrouped: Annotated[
        bool,
        typer.Option("--allow-ungrouped", help="Take RSNA images without patient ids, though splits may then leak."),
    ] = False,
    decoder: Annotated[str, typer.Option(help="dali, torchvision, or auto: DALI where it is installed.")] = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at an unreadable file instead of listing it.")] = False,
) -> None:
    """Decode and resize every image once, into one array with a catalog and a manifest.

    Unreadable files are listed with their reason in quarantine.csv. An interrupted call goes on when called again.
    """
    from bench.sources import read_sources
    from fusion.prepare import prepare as prepare_images
    from fusion.prepared import QUARANTINE

    if decoder not in ("auto", "dali", "torchvision"):
        raise UserError(f"--decoder {decoder!r} is unknown; choose from auto, dali, torchvision")
    with progress_bars() as bars, resumable():
        records, notes = read_sources(
            out,
            busi=busi,
            oasbud=oasbud,
            rsna=rsna,
            folders=folder or [],
            negatives=negatives,
            seed=seed,
            oasbud_groups=oasbud_groups,
            allow_ungrouped=allow_ungrouped,
            progress=bars.stage,
        )
        prepared = prepare_images(
            records,
            out,
            image_size=image_size,
            decoder=None if decoder == "auto" else decoder,  # type: ignore[arg-type]
            strict=strict,
            notes=notes,
            progress=bars.stage,
        )
    from bench.report import prepared_table, terminal_table

    manifest, console = prepared.manifest, Console()
    for note in manifest["notes"]:
        say(f"note: {note}")
    console.print(terminal_table(prepared_table(prepared.counts, prepared.synthetic_sources)))
    catalog, by_pillow, unreadable = prepared.catalog, manifest["decoded_by_pillow"], manifest["quarantined"]
    for line in _duplicates(catalog, prepared.duplicates):
        say(line)
    facts = [
        f"{len(catalog)} images of {image_size} px in {catalog['group_id'].nunique()} groups",
        f"decoded by {manifest['decoder']}" + (f" ({by_pillow} by Pillow, as DALI refused them)" if by_pillow else ""),
        f"{unreadable} unreadable files" + (f" (see {out / QUARANTINE})" if unreadable else ""),
    ]
    say(f"{out}: {', '.join(facts)}")
    print_next(f"fusebench run paper --data {out} --out results/NAME")


def _duplicates(catalog: Any, duplicates: Any) -> list[str]:
    """Return what is known and what was found of images that belong together, a sentence a line."""
    known = catalog[catalog.duplicated("source_group", keep=False)].groupby("source")["source_group"].nunique()
    joined = catalog[catalog.duplicated("group_id", keep=False)]
    kinds = duplicates["kind"].value_counts()
    lines = [
        f"groups of more than one image as the sources know them: {known.sum()}"
        + "".join(f", {name} {count}" for name, count in known.items()),
        f"duplicates found in the pixels: {kinds.get('identical', 0)} identical and {kinds.get('similar', 0)} similar "
        f"pairs; with them {joined['group_id'].nunique()} groups of {len(joined)} images; "
        f"{catalog['class_conflict'].sum()} images in class conflict",
    ]
    label = catalog.set_index("image_id")["label"]
    same = duplicates[duplicates["kind"] == "identical"]
    torn = same[label[same["first"]].to_numpy() != label[same["second"]].to_numpy()]
    shown = [f"{pair.first} = {pair.second}" for pair in torn.head(5).itertuples()]
    if shown:
        lines.append(f"identical images of two classes: {', '.join(shown)}" + (", ..." if len(torn) > 5 else ""))
    return lines
