"""The command line. Each command parses, builds and makes one call; heavy imports wait until a command needs them."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.progress import ProgressBars
from fusion.errors import UserError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help=(
        "Benchmark CNNs for breast-cancer detection on mammography and ultrasound, from raw files to the tables of "
        "Wang et al., Tomography 2024.\n\n"
        "The order of work: **prepare** the raw data once, **run** a matrix on it, read the tables of **report**. "
        "Without data, **phantom** writes synthetic data in the same formats."
    ),
)

Folder = Annotated[Path, typer.Argument(help="Folder to write; made if missing.", show_default=False)]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: the GPU where there is one.")]
Results = Annotated[Path, typer.Argument(help="Folder written by 'fusebench run'.", show_default=False)]
Precision = Annotated[str, typer.Option(help="fp32, bf16, fp16, or auto: mixed on a GPU, fp32 on the CPU.")]


@app.command()
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

    with _bars() as bars:
        counts = write_phantom(
            out, scale=scale, seed=seed, workers=workers, progress=lambda d, t: bars.stage("write phantoms", d, t)
        )
    console = Console()
    console.print(
        f"{out}: " + ", ".join(f"{name} {count}" for name, count in counts.items()), highlight=False, soft_wrap=True
    )
    _print_next(f"fusebench prepare data/NAME --busi {out}/busi --oasbud {out}/oasbud/OASBUD.mat --rsna {out}/rsna")


@app.command()
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
    from fusion.prepare import QUARANTINE
    from fusion.prepare import prepare as prepare_images

    if decoder not in ("auto", "dali", "torchvision"):
        raise UserError(f"--decoder {decoder!r} is unknown; choose from auto, dali, torchvision")
    with _bars() as bars, _resumable():
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
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    console.print(terminal_table(prepared_table(prepared.counts, prepared.synthetic_sources)))
    catalog, by_pillow, unreadable = prepared.catalog, manifest["decoded_by_pillow"], manifest["quarantined"]
    facts = [
        f"{len(catalog)} images of {image_size} px in {catalog['group_id'].nunique()} groups",
        f"decoded by {manifest['decoder']}" + (f" ({by_pillow} by Pillow, as DALI refused them)" if by_pillow else ""),
        f"{manifest['duplicate_pairs']} duplicate pairs found",
        f"{catalog['class_conflict'].sum()} images in class conflict",
        f"{unreadable} unreadable files" + (f" (see {out / QUARANTINE})" if unreadable else ""),
    ]
    console.print(f"{out}: {', '.join(facts)}", markup=False, highlight=False, soft_wrap=True)
    _print_next(f"fusebench run paper --data {out} --out results/NAME")


@app.command()
def run(
    matrix: Annotated[str, typer.Argument(help="paper, quick, or the path of a .toml file.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Folder written by 'fusebench prepare'.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the results.", show_default=False)],
    only: Annotated[
        list[str] | None, typer.Option(help="Cells to run, e.g. 'model2/*'; may be repeated.", show_default=False)
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="paper, clean or both; by default what the matrix says.", show_default=False)
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="imagenet, random, or a folder of safetensors files; by default what the matrix says.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(help="Seed; may be repeated; by default what the matrix says.", show_default=False),
    ] = None,
    loader: Annotated[
        str, typer.Option(help="resident, dali, torchvision, or auto: resident where the images fit the memory.")
    ] = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    step: Annotated[
        str, typer.Option(help="Training steps: eager, graph, compiled (GPU), or auto: the fastest that is possible.")
    ] = "auto",
    measured: Annotated[
        bool,
        typer.Option("--measure/--no-measure", help="Export and measure one cell of each network at the end."),
    ] = True,
) -> None:
    """Train and judge every cell of a matrix, measure one of each network, then write the tables.

    A run that was stopped goes on when called again; finished cells are not trained twice. A cell that fails stays in
    the tables with its reason, the others go on, and the exit code is 1.
    """
    from bench.cell import Settings
    from bench.matrix import MAXIMUM_SEED, load_matrix
    from bench.runner import run as run_matrix
    from fusion.prepare import load_prepared
    from fusion.split import PROTOCOLS

    loaded = load_matrix(matrix)
    if protocol not in (None, "both", *PROTOCOLS):
        raise UserError(f"--protocol {protocol!r} is unknown; choose from {', '.join(PROTOCOLS)}, both")
    for one in seed or []:
        if not 0 <= one <= MAXIMUM_SEED:
            raise UserError(f"--seed {one} is not a whole number from 0 to {MAXIMUM_SEED}")
    cells = loaded.select(only or [])
    settings = Settings(
        weights=loaded.weights if weights is None else weights,
        loader=loader,
        device=device,
        precision=precision,
        step=step,
    )
    prepared = load_prepared(data)
    with _bars() as bars, _resumable():
        summary = run_matrix(
            loaded,
            cells,
            prepared,
            out,
            settings,
            protocols=loaded.protocols if protocol is None else PROTOCOLS if protocol == "both" else (protocol,),
            seeds=list(dict.fromkeys(seed or loaded.seeds)),
            progress=bars.run,
            finished=bars.line,
        )
    console = Console()
    failed = summary.failed
    if measured and summary.done + summary.found:
        from bench.measure import RUN_BATCHES, Plan

        try:
            failed += _measure(out, Plan(batches=RUN_BATCHES))
        except UserError as error:  # the cells are done all the same, and their tables wanted
            failed += (f"measure: {error}",)
    _report(out, ("leaderboard", "table5", "engines") if measured else ("leaderboard",))
    console.print(
        f"{summary.done} cells done, {summary.found} found finished, {len(summary.failed)} failed", highlight=False
    )
    for failure in failed:
        console.print(f"failed: {failure}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def measure(
    results: Results,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Cells to measure, e.g. 'model2/*'; may be repeated; by default one of each network.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Measure every finished cell.")] = False,
    engine: Annotated[
        list[str] | None,
        typer.Option(help="Engine, e.g. onnxruntime-cpu; may be repeated; see below.", show_default=False),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(help="Images of a call; may be repeated; by default 1, 8, 32 and 64.", show_default=False),
    ] = None,
    rounds: Annotated[
        int, typer.Option(help="Timed visits to each engine, for the intervals; cells measured before need --again.")
    ] = 10,
    again: Annotated[
        bool, typer.Option("--again", help="Measure anew what has been measured on this machine, and replace it.")
    ] = False,
) -> None:
    """Export finished cells to ONNX and measure them under PyTorch and ONNX Runtime, from the run's folder alone.

    Every engine classifies the whole test set first; one whose probabilities differ from PyTorch's by more than its
    tolerance stays in the tables, marked and not ranked. The folder can be copied and measured on another machine; the
    rows of all machines stay.

    Engines: pytorch-cpu, onnxruntime-cpu (fp32, int8), pytorch-cuda, pytorch-graph-cuda, onnxruntime-cuda,
    onnxruntime-nhwc, onnxruntime-tensorrt; by name only, as they compile for minutes: pytorch-compiled-cpu,
    pytorch-compiled-cuda.
    """
    from bench.measure import BATCHES, Plan

    plan = Plan(
        only=only or (), every=every, engines=engine or (), batches=batch or BATCHES, rounds=rounds, again=again
    )
    failed = _measure(results, plan)
    _report(results, ("table5", "engines"))
    for failure in failed:
        Console().print(f"failed: {failure}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="An ONNX file that 'fusebench measure' wrote.", show_default=False)],
    files: Annotated[list[Path], typer.Argument(help="Images: PNG, JPEG, PGM, TIFF or DICOM.", show_default=False)],
    csv: Annotated[Path | None, typer.Option(help="File for the answers, too.", show_default=False)] = None,
) -> None:
    """Classify images: the probability that each shows a malignant lesion, and the decision.

    Images are decoded, made grey and resized as in training. A file that can't be read is named with the reason, the
    others are classified, and the exit code is 1.
    """
    from bench.predict import predict as predict_files
    from bench.report import prediction_table, terminal_table
    from bench.report.formats import to_csv
    from fusion.files import write_text

    with _bars() as bars, _interrupted("nothing was written"):
        answers, notes = predict_files(model, files, lambda done: bars.stage("classify", done, len(files)))
    table = prediction_table(answers, notes)
    Console().print(terminal_table(table))
    if csv:
        write_text(csv, to_csv(table))
    if (answers["reason"] != "").any():
        raise typer.Exit(1)


@app.command("data-path")
def data_path(
    data: Annotated[Path, typer.Option(help="Folder written by 'fusebench prepare'.", show_default=False)],
    csv: Annotated[
        Path | None,
        typer.Option(
            help="File for the figures; beside it go the tables (.md) and the machine (.json).", show_default=False
        ),
    ] = None,
    loader: Annotated[
        list[str] | None,
        typer.Option(help="resident, dali or torchvision; may be repeated; by default all.", show_default=False),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(help="Network to train, or none; may be repeated; by default all six.", show_default=False),
    ] = None,
    step: Annotated[
        list[str] | None,
        typer.Option(
            help="Training steps: eager, graph or compiled; may be repeated; by default eager, and on a GPU graph.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Rows of a batch; the paper has 30.")] = 30,
    rows: Annotated[int, typer.Option(help="Augmented rows of one round of a loader.")] = 480,
    rounds: Annotated[int, typer.Option(help="Timed rounds; one more, untimed, goes before.")] = 5,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Measure how fast images reach training: each loader by stage, the kernel, and whether training waits for it.

    On a CPU the training steps of the large networks take minutes at 300 px: choose some with --network.
    """
    from bench.cell import Settings
    from bench.data_path import Plan, measure_data_path, output_files
    from bench.environment import describe_environment, machine_name, set_numerics
    from bench.report import data_path_tables, terminal_table
    from bench.report.formats import to_markdown
    from bench.report.notes import phantom_notes
    from fusion.files import write_json, write_text
    from fusion.models import MODELS
    from fusion.prepare import load_prepared

    plan = Plan(
        settings=Settings(weights="random", device=device, precision=precision),
        loaders=loader or (),
        networks=MODELS if network is None else [name for name in network if name != "none"],
        steps=step or (),
        batch=batch,
        rows=rows,
        rounds=rounds,
    )
    written = output_files(csv) if csv else {}  # before minutes of measuring
    prepared = load_prepared(data)
    where = plan.settings.torch_device()
    set_numerics(where)
    environment = describe_environment(where)
    with _bars() as bars, _interrupted("nothing was written"):
        figures = measure_data_path(prepared, plan, bars.stage).assign(machine=machine_name(environment))
    notes = (
        *phantom_notes(prepared.synthetic_sources),
        f"{machine_name(environment)}; {figures['precision'][0]}, {prepared.image_size} × {prepared.image_size} pixels",
        *plan.left_out(),
    )
    tables = data_path_tables(figures, notes).values()
    for table in tables:
        Console().print(terminal_table(table))
    if written:
        write_text(written["md"], "\n".join(to_markdown(table) for table in tables))
        write_json(written["json"], {"environment": environment, **plan.described(prepared)})
        write_text(written["csv"], figures.to_csv(index=False))
        _print_next(f"open {written['md']}")


@app.command("gpu-check")
def gpu_check(
    work: Annotated[Path, typer.Option(help="Folder for phantoms and the run; made if missing.")] = Path(
        "data/gpu-check"
    ),
    reference: Annotated[Path, typer.Option(help="The results go to a folder in it, named by the GPU.")] = Path(
        "results/reference"
    ),
    protocol: Annotated[str, typer.Option(help="paper, clean or both.")] = "paper",
    only: Annotated[
        list[str] | None, typer.Option(help="Cells to run, e.g. 'model2/*'; may be repeated.", show_default=False)
    ] = None,
) -> None:
    """Measure this machine's GPU: its tests, the data path, the whole matrix at the paper's scale, and the engines.

    The matrix runs on phantoms with random weights and without early stopping, so every cell trains 25 or 30 epochs.
    A check that was stopped goes on when called again.
    """
    import torch

    from bench.gpu_check import check

    if not torch.cuda.is_available():
        raise UserError("gpu-check: torch sees no NVIDIA GPU here; nothing was measured")
    with _resumable():
        went = check(work, reference, protocol=protocol, only=only or ())
    _print_next(f"read {went.kept / 'summary.md'}")
    if went.failures:
        raise typer.Exit(1)


@app.command()
def report(
    results: Results,
) -> None:
    """Write all tables as csv, Markdown and LaTeX, ours beside the paper's, and print them."""
    _report(results, ())


def _measure(results: Path, plan: Any) -> tuple[str, ...]:
    from bench.measure import measure as measure_cells

    with _bars() as bars, _resumable():
        summary = measure_cells(results, plan, progress=bars.run, finished=bars.line)
    Console().print(
        f"{summary.measured} cells measured, {summary.found} found measured, {len(summary.failed)} failed",
        highlight=False,
    )
    return summary.failed


def _report(results: Path, shown: tuple[str, ...]) -> None:
    from bench.report import terminal_table, write_report

    console = Console()
    for name, table in write_report(results).items():
        if name in shown or not shown:
            console.print(terminal_table(table))
    _print_next(f"open {results / 'tables'}/ (csv, Markdown, LaTeX)")


@app.command()
def doctor(
    weights: Annotated[
        str, typer.Option(help="imagenet, random, or a folder of safetensors files, as for 'run'.")
    ] = "imagenet",
    out: Annotated[Path, typer.Option(help="Folder for results; it need not exist.")] = Path("results"),
    json: Annotated[Path | None, typer.Option(help="File for the findings, too.", show_default=False)] = None,
) -> None:
    """Examine this machine: would it do what it claims, or something else in silence?

    Each line is ok, absent (not on this machine, and nothing claims it is) or FAULT with what to do about it. It asks
    no network and changes nothing. The exit code is 1 if there is a fault.
    """
    from bench.doctor import examine
    from fusion.files import write_json

    console = Console()
    with _interrupted("not everything was examined"):
        findings = examine(
            out, weights, lambda found: console.print(str(found), markup=False, highlight=False, soft_wrap=True)
        )
    faults = sum(finding.status == "fault" for finding in findings)
    console.print(f"{len(findings)} checks, {faults} at fault", highlight=False)
    if json:
        write_json(json, {"findings": [vars(finding) for finding in findings]})
    if faults:
        raise typer.Exit(1)


def _print_next(text: str) -> None:
    Console().print(f"next: {text}", markup=False, highlight=False, soft_wrap=True)


def _bars() -> ProgressBars:
    return ProgressBars(Console(stderr=True))


def _resumable() -> AbstractContextManager[None]:
    return _interrupted("the same command goes on from here")


@contextmanager
def _interrupted(what_now: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        Console(stderr=True).print(f"interrupted; {what_now}", highlight=False)
        raise typer.Exit(130) from None


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; a ``UserError`` becomes one line on stderr and exit code 2."""
    try:
        return app(arguments)
    except UserError as error:
        message = " ".join(str(error).split())
        Console(stderr=True).print(f"fusebench: {message}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
