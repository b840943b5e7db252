import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from fusion.errors import UserError
from fusion.images import UnreadableImageError, inspect_image, read_grey_u8, window_u8

DEEP = np.tile(np.linspace(0, 4095, 4096).astype(np.uint16), (4, 1))  # 12-bit content in 16 bits
pydicom = pytest.importorskip("pydicom")


def write_dicom(path: Path, values: np.ndarray, **changes: object) -> Path:
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    data = pydicom.Dataset()
    data.file_meta = meta
    data.Rows, data.Columns = values.shape[:2]
    data.SamplesPerPixel = 1 if values.ndim == 2 else 3
    data.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
    data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = 8 * values.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = 0
    data.PixelData = values.tobytes()
    for name, value in changes.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def test_dicom(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", DEEP)
    facts = inspect_image(path)
    assert (facts.width, facts.height, facts.mode, facts.plain) == (4096, 4, "MONOCHROME2", False)
    np.testing.assert_array_equal(read_grey_u8(path), window_u8(DEEP))
    write_dicom(path, DEEP, PhotometricInterpretation="MONOCHROME1", RescaleSlope=2, RescaleIntercept=-5)
    np.testing.assert_array_equal(read_grey_u8(path), window_u8(-DEEP.astype(float)))
    write_dicom(path, np.full((2, 2, 3), (200, 100, 50), np.uint8))
    assert read_grey_u8(path).tolist() == [[124, 124], [124, 124]]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"Rows": 60_000, "Columns": 60_000}, "limit of 64000000"),
        ({"Rows": 0}, "is no image size"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"PixelData": b"12"}, "truncated or damaged"),
    ],
)
def test_dicom_is_refused(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    path = write_dicom(tmp_path / "a.dcm", DEEP, **changes)
    with pytest.raises(UnreadableImageError, match=reason):
        inspect_image(path)


def test_truncated_dicom(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", DEEP)
    content = path.read_bytes()
    for keep in (132, 140, 200, 400, len(content) - 2):
        path.write_bytes(content[:keep])
        with pytest.raises(UnreadableImageError, match="truncated or damaged"):
            inspect_image(path)


def test_jpeg_2000_that_claims_another_size(tmp_path: Path) -> None:
    stream = b"\xff\x4f\xff\x51" + struct.pack(">HHIIII", 41, 0, 100_000, 100_000, 0, 0)
    path = write_dicom(tmp_path / "a.dcm", DEEP)
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    data.PixelData = pydicom.encaps.encapsulate([stream])
    data["PixelData"].is_undefined_length = True
    data.save_as(path)
    with pytest.raises(UnreadableImageError, match="100000 x 100000 pixels"):
        inspect_image(path)


def test_dicom_without_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "a.dcm", DEEP)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match=r"fusebench\[dicom\]"):
        inspect_image(path)
