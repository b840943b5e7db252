"""The commands that ask what this machine can do: ``data-path``, ``gpu-check`` and ``doctor``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.cli_common import Data, Device, Precision, interrupted, print_next, progress_bars, resumable
from fusion.errors import UserError


def data_path(
    data: Data,
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
    from fusion.prepared import load_prepared

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
    with progress_bars() as bars, interrupted("nothing was written"):
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
        print_next(f"open {written['md']}")


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
    with resumable():
        went = check(work, reference, protocol=protocol, only=only or ())
    print_next(f"read {went.kept / 'summary.md'}")
    if went.failures:
        raise typer.Exit(1)


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
    with interrupted("not everything was examined"):
        findings = examine(
            out, weights, lambda found: console.print(str(found), markup=False, highlight=False, soft_wrap=True)
        )
    faults = sum(finding.status == "fault" for finding in findings)
    console.print(f"{len(findings)} checks, {faults} at fault", highlight=False)
    if json:
        write_json(json, {"findings": [vars(finding) for finding in findings]})
    if faults:
        raise typer.Exit(1)
