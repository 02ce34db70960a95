"""Images become the pixels that `transformers` makes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from support.images import drawn, encoded
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from models.errors import BadFile, BadInput, CompressError, Unsupported
from models.imaging import MOST_PIXELS, Image, Imaging
from models.shape import ImageShape, ModelShape

SQUARE = ImageShape(16, 16, 4, channels=3)
CASES: dict[str, tuple[Any, dict[str, Any], ImageShape]] = {
    "vit": (ViTImageProcessorPil, {"size": {"height": 16, "width": 16}}, SQUARE),
    "bicubic, own means": (
        ViTImageProcessorPil,
        {
            "size": {"height": 16, "width": 16},
            "resample": 3,
            "image_mean": [0.1, 0.2, 0.3],
            "image_std": [0.4, 0.5, 0.6],
        },
        SQUARE,
    ),
    "wide": (ViTImageProcessorPil, {"size": {"height": 8, "width": 20}}, ImageShape(8, 20, 4)),
    "deit": (
        DeiTImageProcessorPil,
        {"size": {"height": 20, "width": 20}, "crop_size": {"height": 16, "width": 16}},
        SQUARE,
    ),
    "shortest edge": (
        DeiTImageProcessorPil,
        {"size": {"shortest_edge": 18}, "crop_size": {"height": 16, "width": 16}},
        SQUARE,
    ),
    "cut out of a smaller image": (
        DeiTImageProcessorPil,
        {"size": {"height": 12, "width": 15}, "crop_size": {"height": 16, "width": 16}},
        SQUARE,
    ),
    "not normalised": (ViTImageProcessorPil, {"size": {"height": 16, "width": 16}, "do_normalize": False}, SQUARE),
    "not rescaled": (ViTImageProcessorPil, {"size": {"height": 16, "width": 16}, "do_rescale": False}, SQUARE),
}


@pytest.mark.parametrize(("kind", "settings", "shape"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("size", [(30, 41), (16, 16), (50, 17)])
def test_pixels_are_those_of_transformers(
    kind: Any, settings: dict[str, Any], shape: ImageShape, size: tuple[int, int], tmp_path: Path
) -> None:
    processor = kind(**settings)
    processor.save_pretrained(tmp_path)
    imaging = Imaging.load(tmp_path, shape)
    pixels = drawn(0, *size, 3)
    expected = processor(Pillow.fromarray(pixels), return_tensors="np")["pixel_values"]
    found = imaging.normalised(imaging.pixels(Image("it", encoded(pixels)))[None])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    (tmp_path / "again").mkdir()
    imaging.save(tmp_path / "again")
    assert Imaging.load(tmp_path / "again", shape) == imaging
    back = kind.from_pretrained(tmp_path / "again")(Pillow.fromarray(pixels), return_tensors="np")["pixel_values"]
    if settings.get("do_rescale", True):
        np.testing.assert_allclose(back, expected, atol=1e-5)


def imaging(**changes: Any) -> Imaging:
    return replace(Imaging.of(ImageShape(8, 8, 4, channels=1)), **changes)


def test_every_kind_of_image_becomes_grey_or_colour(tmp_path: Path) -> None:
    grey = drawn(1, 8, 8)
    expected = grey[None]
    colour = np.repeat(grey[:, :, None], 3, axis=2)
    for content in (grey, encoded(grey), colour, encoded(colour), encoded(grey, "BMP"), encoded(grey, "TIFF")):
        np.testing.assert_array_equal(imaging().pixels(Image("it", content)), expected)
    (tmp_path / "a.png").write_bytes(encoded(grey))
    np.testing.assert_array_equal(imaging().pixels(Image("it", tmp_path / "a.png")), expected)
    both = Imaging.of(ImageShape(8, 8, 4, channels=3)).pixels(Image("it", grey))
    np.testing.assert_array_equal(both, np.repeat(expected, 3, axis=0))
    palette = Pillow.fromarray(colour).convert("P", palette=Pillow.Palette.ADAPTIVE)
    palette.save(tmp_path / "a.gif")
    assert imaging().pixels(Image("it", tmp_path / "a.gif")).shape == (1, 8, 8)


def test_a_photograph_is_read_upright(tmp_path: Path) -> None:
    image = Pillow.fromarray(np.repeat(np.array([[0], [255]], dtype=np.uint8), 4, axis=0).repeat(8, axis=1))
    exif = Pillow.Exif()
    exif[0x0112] = 3  # it was taken upside down
    image.save(tmp_path / "a.png", exif=exif)
    found = imaging().pixels(Image("it", tmp_path / "a.png"))[0]
    assert found[0].tolist() == [255] * 8
    assert found[-1].tolist() == [0] * 8


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"not an image", "cannot identify|format is not known"),
        (b"", "format is not known"),
        (encoded(drawn(0, 30, 30))[:300], "not an image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "format is not known"),
    ],
)
def test_a_broken_image_is_named(content: bytes, says: str) -> None:
    with pytest.raises(BadInput, match=f"^row 7: .*({says}).*Formats: PNG"):
        imaging().pixels(Image("row 7", content))


def test_an_image_that_unpacks_to_too_much_is_refused() -> None:
    side = 1 + int(MOST_PIXELS**0.5)
    content = encoded(np.zeros((side, side), dtype=np.uint8))
    assert len(content) < 1 << 20
    with pytest.raises(BadInput, match=f"an image of {side} x {side} pixels is too large"):
        imaging().pixels(Image("it", content))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere.png: there is no such file"):
        imaging().read([str(tmp_path / "nowhere.png")], None, max_length=5, shared=0)
    with pytest.raises(BadInput, match="no second text"):
        imaging().read(["a.png"], ["b"], max_length=5, shared=0)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"image_mean": [0.1, 0.2]}, BadFile, "2 numbers for 3 channels"),
        ({"image_std": [0.5, 0, 0.5]}, BadFile, "image_std"),
        ({"image_mean": "light"}, BadFile, "not the settings"),
        ({"size": {"longest": 3}}, BadFile, "not the settings"),
        ({"resample": "much"}, BadFile, "not the settings"),
        ({"resample": 9}, BadFile, "resample is 9"),
        ({"rescale_factor": float("nan")}, BadFile, "rescale_factor is nan"),
        ({"size": {"height": 16, "width": 1 << 20}}, BadFile, "images become .*1048576"),
        ({"size": {"shortest_edge": 0}}, BadFile, "images become"),
        ({"do_pad": True}, Unsupported, "padded"),
    ],
)
def test_settings_that_are_not_ours(
    change: dict[str, Any], error: type[CompressError], says: str, tmp_path: Path
) -> None:
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=says):
        Imaging.load(tmp_path, SQUARE)


def test_a_network_of_other_images_or_of_texts_is_told() -> None:
    image = ImageShape(8, 12, 4, channels=1)
    shape = ModelShape("vit", 0, 8, (), max_positions=image.tokens, pre_norm=True, image=image)
    assert (
        imaging().problem(shape)
        == "images become 8 x 8 pixels of 1 channels, and the model reads 8 x 12 pixels of 1 channels"
    )
    assert Imaging.of(image).problem(shape) is None
    assert imaging().problem(ModelShape("bert", 10, 8, ())) == "the model reads texts, not images"
    with pytest.raises(Unsupported, match="2 channels"):
        Imaging.of(ImageShape(8, 8, 4, channels=2))


def test_the_digest_is_of_all_settings() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"mean": (0.4,)},
        {"std": (0.4,)},
        {"resize": None},
        {"resize": 9},
        {"resample": 3},
    ]
    assert len({imaging(**change).digest for change in changes}) == len(changes)
