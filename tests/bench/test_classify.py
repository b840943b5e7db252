from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bench.classify import BatchClassifier, batches_of, decoded_batches
from fusion.decode import resize_u8
from fusion.errors import UserError


class MeanSession:
    """Gives the mean grey value of each image, by 255."""

    device = torch.device("cpu")

    def bind(self, images_u8: Tensor) -> Callable[[], Tensor]:
        return lambda: images_u8.float().mean(dim=(1, 2, 3)) / 255


def write_images(folder: Path, count: int, shape: tuple[int, int] = (8, 8)) -> list[Path]:
    draw, files = np.random.default_rng(count), [folder / f"{number}.png" for number in range(count)]
    for file in files:
        Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).save(file)
    return files


@pytest.mark.parametrize(("count", "batch"), [(0, 4), (1, 4), (4, 4), (9, 4), (9, 1), (5, 64)])
def test_files_come_in_order_and_whole(tmp_path: Path, count: int, batch: int) -> None:
    files = write_images(tmp_path, count)
    parts = list(decoded_batches(files, 8, batch))
    assert [len(part) for part in parts] == [min(batch, count - start) for start in range(0, count, batch)]
    for number, image in enumerate(image for part in parts for image in part):
        assert (image[0] == np.asarray(Image.open(files[number]))).all()


def test_files_of_another_size_are_resized_as_in_training(tmp_path: Path) -> None:
    (file,) = write_images(tmp_path, 1, (31, 17))
    (part,) = decoded_batches([file], 8, 4)
    assert (part[0] == resize_u8(np.array(Image.open(file)), 8)).all()


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    files = write_images(tmp_path, 3)
    files[1].write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"1\.png: "):
        list(decoded_batches(files, 8, 2))


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_probabilities_do_not_depend_on_the_batch(batch: int) -> None:
    images_u8 = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    classifier = BatchClassifier(MeanSession(), batch, 8)
    for _ in range(2):  # nothing is left in the buffer
        answers = classifier.probabilities(batches_of(images_u8, batch))
        assert answers == pytest.approx(images_u8.mean(axis=(1, 2, 3)) / 255)
    assert len(classifier.probabilities([])) == 0
