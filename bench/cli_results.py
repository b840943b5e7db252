"""The commands that make results, ``run``, ``measure``, ``explain``, ``predict`` and ``report``, and ``verify``."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.cli_common import Data, Device, Precision, Results, interrupted, print_next, progress_bars, resumable
from bench.progress import say
from fusion.errors import DiskError, UserError


def run(
    matrix: Annotated[str, typer.Argument(help="paper, quick, or the path of a .toml file.", show_default=False)],
    data: Data,
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
    jobs: Annotated[
        int, typer.Option(help="Cells at once on this machine; its GPUs and cores are divided between them.")
    ] = 1,
    threads: Annotated[
        int | None,
        typer.Option(
            help="CPU threads of a cell; by default the cores divided by the jobs, or what the run began with.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray: on the nodes of a Ray cluster.")] = "local",
    address: Annotated[
        str,
        typer.Option(help="Of the Ray cluster; auto: this machine's; by default starts one here.", show_default=False),
    ] = "",
    gpus_per_cell: Annotated[
        float | None,
        typer.Option(help="With Ray: share of a GPU for a cell, e.g. 0.25; by default 1.", show_default=False),
    ] = None,
    measured: Annotated[
        bool,
        typer.Option("--measure/--no-measure", help="Export and measure one cell of each network at the end."),
    ] = True,
    explained: Annotated[
        bool, typer.Option("--explain/--no-explain", help="Map where one cell of each network looks, at the end.")
    ] = True,
) -> None:
    """Train and judge every cell of a matrix, measure one of each network, map where they look, then write the tables.

    A run that was stopped goes on when called again; finished cells are not trained twice. A cell that fails stays in
    the tables with its reason, the others go on, and the exit code is 1.

    Scores are the same wherever the cells are computed, given the same --threads: docs/cluster.md shows several GPUs,
    SLURM and Kubernetes.
    """
    from bench.cell import Settings
    from bench.executors import Where
    from bench.matrix import MAXIMUM_SEED, load_matrix
    from bench.runner import run as run_matrix
    from fusion.prepared import load_prepared
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
    where = Where(engine=engine, jobs=jobs, threads=threads, address=address, gpus_per_cell=gpus_per_cell)
    prepared = load_prepared(data)
    with progress_bars() as bars, resumable():
        summary = run_matrix(
            loaded,
            cells,
            prepared,
            out,
            settings,
            protocols=loaded.protocols if protocol is None else PROTOCOLS if protocol == "both" else (protocol,),
            seeds=list(dict.fromkeys(seed or loaded.seeds)),
            where=where,
            progress=bars.run,
            finished=bars.line,
        )
    console = Console()
    failed = summary.failed
    measured = measured and any(cell.network for cell in cells)
    if measured and summary.done + summary.found:
        from bench.measure import RUN_BATCHES, Plan

        try:
            failed += _measure(out, Plan(batches=RUN_BATCHES))
        except UserError as error:  # the cells are done all the same, and their tables wanted
            failed += (f"measure: {error}",)
    if explained and summary.done + summary.found:
        from bench.explain import RUN_SHOWN
        from bench.explain import Plan as Explaining
        from bench.explanation_rows import FAMILIES

        if any(cell.name.partition("/")[0] in FAMILIES for cell in cells):
            try:
                failed += _explain(out, Explaining(every=False, images=RUN_SHOWN, device=device))
            except UserError as error:
                failed += (f"explain: {error}",)
    try:
        _report(out, ("leaderboard", *(("table5", "engines") if measured else ())))
    except DiskError:
        raise
    except UserError as error:  # another call may be writing it
        failed += (f"report: {error}",)
    console.print(
        f"{summary.done} cells done, {summary.found} found finished, {len(summary.failed)} failed", highlight=False
    )
    _end(failed)


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
        typer.Option(help="Engine, e.g. onnxruntime-cpu; may be repeated; all are named above.", show_default=False),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(help="Images of a call; may be repeated; by default 1, 8, 32 and 64.", show_default=False),
    ] = None,
    rounds: Annotated[
        int, typer.Option(help="Timed visits to each engine, for the intervals; cells measured before need --again.")
    ] = 10,
    again: Annotated[
        bool, typer.Option("--again", help="Measure anew what was measured or refused on this machine, and replace it.")
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
    _end(failed)


def explain(
    results: Results,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Cells to explain, e.g. 'model3/*'; may be repeated; by default all networks.", show_default=False
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="Pictures of a cell, at most.")] = 24,
    device: Device = "auto",
    again: Annotated[
        bool, typer.Option("--again", help="Explain anew what was explained before, and replace it.")
    ] = False,
) -> None:
    """Map where trained networks look: Grad-CAM of the malignant logit on test images, from the run's folder alone.

    Pictures show the map over the image with the lesion outlined where the data set has one; scores say how much of the
    maps lies inside the lesions, over the test images that have one (at most 1000). Explained are the networks of
    Models 2 and 3, of the ablation and of the transfer; Model 1's classifiers on frozen features are not.
    """
    from bench.explain import Plan

    plan = Plan(only=only or (), images=images, device=device, again=again)
    failed = _explain(results, plan)
    _report(results, ("explanations",))
    print_next(f"look at {results / 'explanations'}/ (pictures of every cell)")
    _end(failed)


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

    with progress_bars() as bars, interrupted("nothing was written"):
        answers, notes = predict_files(model, files, lambda done: bars.stage("classify", done, len(files)))
    table = prediction_table(answers, notes)
    Console().print(terminal_table(table))
    if csv:
        write_text(csv, to_csv(table))
    if (answers["reason"] != "").any():
        raise typer.Exit(1)


def report(
    results: Results,
) -> None:
    """Write all tables, print them, draw all figures, and write index.html, which shows all of it."""
    _report(results, ())


def verify(
    folder: Annotated[
        Path, typer.Argument(help="Folder written by 'fusebench run' or 'fusebench prepare'.", show_default=False)
    ],
) -> None:
    """Compare every file of a folder with its checksum, and the rows of every cell with its predictions.

    Says what is missing, damaged, foreign or unfinished, and the way out. Nothing is changed. The exit code is 0 only
    where all is well, else 1.
    """
    from bench.report import terminal_table
    from bench.report.verification import verification_sentence, verification_table
    from bench.verify import verify as verify_folder

    with progress_bars() as bars:
        verified = verify_folder(folder, lambda done, total: bars.run("verify", done, total))
    console = Console()
    if verified.findings:
        console.print(terminal_table(verification_table(verified.findings)))
    console.print(f"{folder}: {verification_sentence(verified)}", markup=False, highlight=False, soft_wrap=True)
    if verified.findings:
        raise typer.Exit(1)


def _measure(results: Path, plan: Any) -> tuple[str, ...]:
    from bench.measure import measure as measure_cells

    with progress_bars() as bars, resumable():
        summary = measure_cells(results, plan, progress=bars.run, finished=bars.line)
    Console().print(
        f"{summary.measured} cells measured, {summary.found} found measured, {len(summary.failed)} failed",
        highlight=False,
    )
    return summary.failed


def _explain(results: Path, plan: Any) -> tuple[str, ...]:
    from bench.explain import explain as explain_cells

    with progress_bars() as bars, resumable():
        summary = explain_cells(results, plan, progress=bars.run, finished=bars.line)
    Console().print(
        f"{summary.explained} cells explained, {summary.found} found explained, {len(summary.failed)} failed",
        highlight=False,
    )
    return summary.failed


def _end(failed: tuple[str, ...]) -> None:
    for failure in failed:
        say(f"failed: {failure}")
    if failed:
        raise typer.Exit(1)


def _report(results: Path, shown: tuple[str, ...]) -> None:
    from bench.report import terminal_table, write_report

    console = Console()
    report = write_report(results)
    for name, table in report.tables.items():
        if name in shown or not shown:
            console.print(terminal_table(table))
    for figure in report.figures:
        if figure.reason:
            say(f"figure {figure.name} left out: {figure.reason}")
    print_next(f"open {report.page}; its tables and figures lie in {results / 'tables'}/ and {results / 'figures'}/")
