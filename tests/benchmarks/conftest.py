"""Images the benchmarks read: the real BUSI set in FUSEBENCH_BUSI where it is given, else phantoms of it."""

import os
from pathlib import Path

import pytest

from fusion.catalog import to_frame
from fusion.sources.busi import read_busi
from fusion.sources.phantom import write_phantom


@pytest.fixture(scope="session")
def busi_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of BUSI that DALI decodes directly."""
    root = os.environ.get("FUSEBENCH_BUSI")
    if not root:
        folder = tmp_path_factory.mktemp("phantom") / "data"
        write_phantom(folder, scale=0.1)
        root = str(folder / "busi")
    records, _ = read_busi(Path(root))
    return [Path(path) for path in to_frame(records)["path"]]
