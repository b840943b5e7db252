"""Valid raw data in every format that is read: images, a .mat file, csv files and their folders."""

import json
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image, ImageDraw

RSNA_COLUMNS = "site_id,patient_id,image_id,laterality,view,age,cancer,biopsy"


def grey(seed: int = 0, width: int = 24, height: int = 20) -> np.ndarray:
    """Return a smooth grey picture, [height, width] uint8."""
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 6), dtype=np.uint8)
    return np.asarray(Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC))


def write_pngs(folder: Path) -> None:
    """Write PNG files of every mode, with text, interlaced parts, transparency and several frames."""
    whole = Image.fromarray(grey())
    images = {mode: whole.convert(mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")}
    images["I16"] = Image.fromarray(grey().astype(np.uint16) * 257)
    for mode, image in images.items():
        image.save(folder / f"{mode}.png")
    images["P"].save(folder / "transparent.png", transparency=3)
    frames = [Image.fromarray(grey(seed)) for seed in (1, 2)]
    frames[0].save(folder / "animated.png", save_all=True, append_images=frames[1:])
    for bits in (2, 4):
        images["P"].quantize(2**bits).save(folder / f"bits{bits}.png", bits=bits)


def write_jpegs(folder: Path) -> None:
    """Write JPEG files: grey, colour, CMYK, progressive, with an EXIF orientation."""
    whole = Image.fromarray(grey(width=40, height=40))
    exif = Image.Exif()
    exif[0x0112] = 6
    whole.save(folder / "grey.jpg", quality=80)
    whole.convert("RGB").save(folder / "colour.jpg", exif=exif)
    whole.convert("CMYK").save(folder / "cmyk.jpg")
    whole.convert("RGB").save(folder / "progressive.jpg", progressive=True)


def write_tiffs(folder: Path) -> None:
    """Write TIFF files: plain, each compression, 1 to 32 bits, several pages."""
    whole = Image.fromarray(grey())
    whole.save(folder / "plain.tif")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        whole.save(folder / f"{compression}.tif", compression=compression)
    whole.convert("1").save(folder / "group4.tif", compression="group4")
    whole.convert("F").save(folder / "float.tif")
    Image.fromarray(grey().astype(np.uint16) * 200).save(folder / "deep.tif", compression="tiff_lzw")
    whole.save(folder / "pages.tif", save_all=True, append_images=[Image.fromarray(grey(1))])


def write_pgms(folder: Path) -> None:
    """Write PBM, PGM, PPM and PFM files, as bytes and as text."""
    values = grey(width=6, height=5)
    (folder / "bytes.pgm").write_bytes(b"P5\n# by hand\n6 5\n255\n" + values.tobytes())
    (folder / "deep.pgm").write_bytes(b"P5 6 5 65535\n" + (values.astype(">u2") * 257).tobytes())
    (folder / "text.pgm").write_text("P2\n6 5\n255\n" + " ".join(map(str, values.ravel())), encoding="ascii")
    (folder / "bits.pgm").write_bytes(b"P4 8 2\n\x55\xaa")
    (folder / "colour.pgm").write_bytes(b"P6 3 2 255\n" + bytes(range(18)))
    (folder / "float.pgm").write_bytes(b"Pf\n6 5\n-1.0\n" + values.astype("<f4").tobytes())


def write_dicoms(folder: Path) -> None:
    """Write DICOM files: deep grey, inverted, colour, run lengths, JPEG 2000."""
    import pydicom
    from pydicom.pixels import set_pixel_data

    for name, values, photometric in (
        ("grey", grey(0, 64, 64).astype(np.uint16) * 16, "MONOCHROME2"),
        ("inverted", grey(0, 64, 64), "MONOCHROME1"),
        ("colour", np.stack([grey(seed, 64, 64) for seed in range(3)], axis=-1), "RGB"),
    ):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, "1.2.3"
        set_pixel_data(data, values, photometric, 8 * values.itemsize)
        data.save_as(folder / f"{name}.dcm", enforce_file_format=True)
        if name == "grey":
            data.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
            data.save_as(folder / "runs.dcm", enforce_file_format=True)
            data.decompress(generate_instance_uid=False)
            data.compress(pydicom.uid.JPEG2000Lossless, generate_instance_uid=False)
            data.save_as(folder / "jpeg2000.dcm", enforce_file_format=True)


def write_mats(folder: Path) -> None:
    """Write OASBUD.mat of three lesions, compressed and not."""
    data = np.empty((1, 3), dtype=[(name, object) for name in ("id", "rf1", "rf2", "roi1", "roi2", "class")])
    for place in range(3):
        scans = [(np.random.default_rng(place + n).normal(size=(60, 8)) * 300).astype(np.int16) for n in (0, 9)]
        regions = [np.pad(np.ones((20, 4), np.uint8), ((20, 20), (2, 2))) for _ in scans]
        data[0, place] = (np.array([f"{place}mm"]), *scans, *regions, np.array([[place % 2]], np.uint8))
    for name, compressed in (("compressed", True), ("plain", False)):
        scipy.io.savemat(folder / f"{name}.mat", {"data": data, "other": "word"}, do_compression=compressed)


def write_folder(folder: Path) -> None:
    """Write a data set of any other kind: six images listed in labels.csv."""
    lines = ["path,label,group,modality,note"]
    for number in range(6):
        Image.fromarray(grey(number)).save(folder / f"{number}.png")
        lines.append(f'{number}.png,{"malignant" if number % 2 else "benign"},p{number // 2},ultrasound,"a ""note"""')
    (folder / "labels.csv").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")


def write_rsna(folder: Path) -> None:
    """Write train.csv with six images, of three patients."""
    (folder / "train").mkdir()
    lines = [RSNA_COLUMNS]
    for number in range(6):
        Image.fromarray(grey(number)).save(folder / "train" / f"{number // 2}_{number}.png")
        lines.append(f"1,{number // 2},{number},L,CC,6{number}.0,{number % 2},0")
    (folder / "train.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_busi(folder: Path) -> None:
    """Write a phantom of BUSI: two images of each class with masks, and the groups."""
    groups = {}
    for place, name in enumerate(("benign", "malignant")):
        (folder / name).mkdir()
        for number in (1, 2):
            stem = f"{name} ({number})"
            Image.fromarray(grey(10 * place + number)).save(folder / name / f"{stem}.png")
            mask = Image.new("L", (24, 20))
            ImageDraw.Draw(mask).ellipse((5, 5, 15, 15), fill=255)
            mask.save(folder / name / f"{stem}_mask.png")
            groups[stem] = f"g{place}{number}"
    (folder / "phantom.json").write_text(json.dumps({"groups": groups}), encoding="utf-8")
