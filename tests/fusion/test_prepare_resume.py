"""Preparing that was interrupted, or is called again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_images import COUNT, SIZE, needs_dali, picture, refuse, run

from fusion import decode
from fusion import prepare as preparing
from fusion.catalog import ImageRecord
from fusion.checksums import SUMS, problems
from fusion.decode import decode_torchvision
from fusion.errors import UserError
from fusion.files import sole_writer
from fusion.prepared import IMAGES, MANIFEST, load_prepared


class Interruption(BaseException):
    """What the user's Ctrl-C is to a program."""


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(("stage", "done"), [("check files", 5), ("decode and resize", 8), ("find duplicates", COUNT)])
@pytest.mark.parametrize("decoder", [pytest.param("dali", marks=needs_dali), "torchvision"])
def test_an_interrupted_call_goes_on_where_it_was(
    tmp_path: Path,
    records: list[ImageRecord],
    out: Path,
    decoded: list[int],
    stage: str,
    done: int,
    decoder: decode.Decoder,
) -> None:
    whole = run(records, tmp_path / "whole", decoder=decoder)
    decoded.clear()

    def interrupt(*step: object) -> None:
        if step[:2] == (stage, done):
            raise Interruption

    with pytest.raises(Interruption):
        run(records, out, decoder=decoder, progress=interrupt)
    refuse("is not a prepared data set", lambda: load_prepared(out))
    before = sum(decoded)
    assert before == {"check files": 0, "decode and resize": 8, "find duplicates": COUNT}[stage]
    resumed = run(records, out, decoder=decoder)
    assert sum(decoded) == COUNT
    assert (out / IMAGES).read_bytes() == (tmp_path / "whole" / IMAGES).read_bytes()
    assert resumed.data_hash == whole.data_hash
    assert not (out / "partial").exists()
    pd.testing.assert_frame_equal(resumed.catalog, whole.catalog)


def test_an_interruption_before_the_manifest_is_mended(
    records: list[ImageRecord], out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json = preparing.write_json

    def interrupt(path: Path, content: object) -> None:
        if path.name == MANIFEST:
            raise Interruption
        write_json(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "write_json", interrupt)
        with pytest.raises(Interruption):
            run(records, out)
    refuse("is not a prepared data set", lambda: load_prepared(out))
    assert run(records, out).data_hash == run(records, tmp_path / "whole").data_hash


@pytest.mark.usefixtures("small_batches")
def test_what_was_decoded_of_other_files_is_not_used(records: list[ImageRecord], out: Path, decoded: list[int]) -> None:
    def interrupt(*step: object) -> None:
        if step[:2] == ("decode and resize", 8):
            raise Interruption

    with pytest.raises(Interruption):
        run(records, out, progress=interrupt)
    first = min(records, key=lambda r: r.image_id).path
    picture(99, 70, 20).save(first)
    prepared = run(records, out)
    assert sum(decoded) == 8 + COUNT
    np.testing.assert_array_equal(prepared.images_u8[0], decode_torchvision(first, SIZE))


def test_a_second_call_changes_nothing(records: list[ImageRecord], out: Path, decoded: list[int]) -> None:
    first = run(records, out)
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()}
    decoded.clear()
    second = run(records, out)
    assert decoded == []
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()} == before
    assert second.data_hash == first.data_hash


def test_other_data_into_the_same_folder_is_refused(records: list[ImageRecord], out: Path) -> None:
    first = run(records, out)
    message = f"already holds another prepared data set \\({COUNT} images at {SIZE} px\\)"
    refuse(message, lambda: run(records[1:], out))
    refuse(message, lambda: run(records, out, image_size=SIZE + 1))
    picture(77).save(records[0].path)
    refuse(message, lambda: run(records, out))
    assert load_prepared(out).data_hash == first.data_hash


def test_two_calls_never_write_into_one_folder(records: list[ImageRecord], out: Path) -> None:
    with sole_writer(out), pytest.raises(UserError, match="another process is writing to"):
        run(records, out)
    assert len(run(records, out).catalog) == COUNT


def test_a_call_killed_after_the_manifest_leaves_nothing_behind(records: list[ImageRecord], out: Path) -> None:
    run(records, out)
    before = (out / SUMS).read_bytes()
    (out / SUMS).unlink()
    (out / "partial").mkdir()
    (out / "partial" / "progress.json").write_text("{}")
    run(records, out)
    assert (out / SUMS).read_bytes() == before
    assert not (out / "partial").exists()


def test_a_refused_call_leaves_none_of_its_images_in_a_finished_data_set(
    records: list[ImageRecord], out: Path, tmp_path: Path
) -> None:
    run(records, out)
    other = tmp_path / "other.png"
    Image.fromarray(np.full((20, 30), 30000, np.uint16)).save(other)  # of 16 bits: it is converted
    rendered = out / "bmode" / "0123456789ab" / "0.png"
    rendered.parent.mkdir(parents=True)
    picture(seed=1).save(rendered)
    for folder in ("converted", "bmode"):
        (out / folder / "mine").mkdir(parents=True, exist_ok=True)
    more = [replace(records[0], image_id=f"more-{place}", path=file) for place, file in enumerate((other, rendered))]
    refuse("already holds another prepared data set", lambda: run([*records, *more], out))
    assert {path.name for folder in ("converted", "bmode") for path in (out / folder).iterdir()} == {"mine"}
    assert problems(out) == []
