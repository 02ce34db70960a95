"""From an image to pixels, by the `preprocessor_config.json` that belongs to a model."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from models.errors import BadFile, BadInput, Unsupported
from models.files import digest_of, read_object, write_json
from models.shape import ImageShape, ModelShape
from models.shape_problems import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image as Opened

PROCESSOR_FILE = "preprocessor_config.json"
MODES = {1: "L", 3: "RGB"}  # channels -> what an image is turned into
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # decoders that start no other program
MOST_PIXELS = 1 << 26  # of one image before it is resized: a small file may unpack to any size
BILINEAR = 2
RESAMPLINGS = range(6)  # Pillow's numbers
HALF = 0.5
WHOLE = 255

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class Image(NamedTuple):
    """An image as it lies somewhere: a file, the bytes of one, or pixels (height, width) or (height, width, channels);
    `name` says where, for messages.
    """

    name: str
    content: Path | bytes | Pixels


class Picture(NamedTuple):
    """An image as a network reads it: `pixels` float32 (channels, height, width), and the `size` it came in, width and
    height.
    """

    pixels: Floats
    size: tuple[int, int]

    @property
    def inputs(self) -> dict[str, Floats]:
        """Return the arrays of a batch of this image alone, by the names of a network's inputs."""
        return {"pixel_values": self.pixels[None]}


@final
@dataclass(frozen=True, slots=True)
class Imaging:
    """How an image becomes what a network reads, step by step: turned into so many channels, resized (to height and
    width, or its shorter edge to one length, or not), cut out of the middle where it is larger than `height` and
    `width`, multiplied by `factor`, less `mean`, divided by `std`.
    """

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: tuple[int, int] | int | None
    resample: int = BILINEAR
    factor: float = 1 / WHOLE

    @staticmethod
    def of(image: ImageShape) -> Imaging:
        """Return what a network of this shape reads with where nothing else is said: values from -1 to 1.

        Raises:
            Unsupported: neither grey nor colour.
        """
        _check_channels(image)
        half, size = (HALF,) * image.channels, (image.height, image.width)
        return Imaging(*size, image.channels, half, half, size)

    @staticmethod
    def load(directory: Path, image: ImageShape) -> Imaging:
        """Return what is said in a checkpoint or bundle directory of a network of this shape.

        Raises:
            BadFile: there is no `preprocessor_config.json`, or it does not say what it must.
            Unsupported: steps that are not known, or a number of channels.
        """
        path = directory / PROCESSOR_FILE
        if not path.is_file():
            raise BadFile("there is no such file", where=str(path), fix="Save it with the model: save_pretrained.")
        try:
            return _imaging(read_object(path), image, where=str(path))
        except (KeyError, TypeError, ValueError) as error:
            raise BadFile(f"not the settings of an image processor ({error!r})", where=str(path)) from None

    def shipped(self, *, token_types: bool) -> Imaging:
        """Return the same: it is a handful of numbers."""
        return self

    @property
    def digest(self) -> str:
        """Return the SHA-256 of everything that decides the pixels."""
        return digest_of(asdict(self))

    def problem(self, shape: ModelShape) -> str | None:
        """Return why a network of this shape cannot take these pixels, or None."""
        image = shape.image
        if image is None:
            return "the model reads texts, not images"
        if shape.head is not None and shape.head.boxes and self.resize != (self.height, self.width):
            return "the middle is cut out of images, and boxes are shares of whole ones that are resized"
        if (image.channels, image.height, image.width) == (self.channels, self.height, self.width):
            return None
        ours, theirs = (f"{one.height} x {one.width} pixels of {one.channels} channels" for one in (self, image))
        return f"images become {ours}, and the model reads {theirs}"

    def save(self, directory: Path) -> None:
        """Write `preprocessor_config.json` in the keys of Hugging Face."""
        resize = self.resize
        size = {"shortest_edge": resize} if isinstance(resize, int) else None
        height, width = resize if isinstance(resize, tuple) else (self.height, self.width)
        write_json(
            directory / PROCESSOR_FILE,
            {
                "image_processor_type": "ViTImageProcessor",
                "do_resize": resize is not None,
                "size": size or {"height": height, "width": width},
                "resample": self.resample,
                "do_center_crop": (height, width) != (self.height, self.width) or size is not None,
                "crop_size": {"height": self.height, "width": self.width},
                "do_convert_rgb": self.channels == 3,
                "do_rescale": True,
                "rescale_factor": self.factor,
                "do_normalize": True,
                "image_mean": list(self.mean),
                "image_std": list(self.std),
            },
        )

    def read(
        self, texts: Sequence[str], pairs: Sequence[str] | None, *, max_length: int, shared: int
    ) -> list[list[Picture]]:
        """Return the images in these files, each a window.

        Raises:
            BadInput: a file that is not there, or no image; or second texts.
        """
        if pairs is not None:
            raise BadInput("images have no second text", where="--pair")
        opened = [opened_image(Image(text, Path(text).expanduser())) for text in texts]
        return [[Picture(self.normalised(self._shown(one)[None])[0], one.size)] for one in opened]

    def normalised(self, pixels: Pixels) -> Floats:
        """Return what a network reads, float32, for pixels (images, channels, height, width)."""
        mean, std = (np.array(values, dtype=np.float32)[:, None, None] for values in (self.mean, self.std))
        scaled = pixels.astype(np.float32) * np.float32(self.factor)
        shown: Floats = (scaled - mean) / std
        return shown

    def pixels(self, image: Image) -> Pixels:
        """Return an image in the size that a network reads, uint8 (channels, height, width).

        Raises:
            BadInput: there is no such file, or it is no image that can be read.
        """
        return self._shown(opened_image(image))

    def _shown(self, image: Opened) -> Pixels:
        from PIL import Image as Pillow

        opened = image.convert(MODES[self.channels])
        if self.resize is not None:
            opened = opened.resize(_size(self.resize, opened.size), Pillow.Resampling(self.resample))
        array = np.asarray(opened, dtype=np.uint8).reshape(opened.height, opened.width, self.channels)
        return _middle(array.transpose(2, 0, 1), self.height, self.width)


def opened_image(image: Image) -> Opened:
    """Return an image upright, its pixels decoded when they are needed.

    Raises:
        BadInput: there is no such file, or it is no image that can be read.
    """
    from PIL import Image as Pillow
    from PIL import ImageOps, UnidentifiedImageError

    if isinstance(image.content, np.ndarray):
        return Pillow.fromarray(image.content)
    source = io.BytesIO(image.content) if isinstance(image.content, bytes) else image.content
    try:
        opened = Pillow.open(source, formats=FORMATS)
        if opened.width * opened.height > MOST_PIXELS:
            raise BadInput(f"an image of {opened.width} x {opened.height} pixels is too large", where=image.name)
        return ImageOps.exif_transpose(opened)
    except FileNotFoundError:
        raise BadInput("there is no such file", where=image.name) from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        said = "its format is not known" if isinstance(error, UnidentifiedImageError) else str(error)
        raise BadInput(
            f"not an image that can be read ({said})", where=image.name, fix=f"Formats: {', '.join(FORMATS)}."
        ) from None


def _size(wanted: tuple[int, int] | int, given: tuple[int, int]) -> tuple[int, int]:
    """Return width and height to resize to, for those that are given."""
    if isinstance(wanted, tuple):
        return wanted[1], wanted[0]
    width, height = given
    longer = int(wanted * max(given) / min(given))
    return (wanted, longer) if width <= height else (longer, wanted)


def _middle(pixels: Pixels, height: int, width: int) -> Pixels:
    """Return the middle of (channels, ., .), with zeros around it where it is smaller."""
    _, rows, columns = pixels.shape
    up, left = max(0, -(-(height - rows) // 2)), max(0, -(-(width - columns) // 2))
    down, right = max(0, height - rows - up), max(0, width - columns - left)
    framed = np.pad(pixels, ((0, 0), (up, down), (left, right)))
    top, start = (framed.shape[1] - height) // 2, (framed.shape[2] - width) // 2
    middle: Pixels = framed[:, top : top + height, start : start + width]
    return middle


def _check_channels(image: ImageShape) -> None:
    if image.channels not in MODES:
        raise Unsupported(f"images of {image.channels} channels", fix=f"Known: {', '.join(map(str, MODES))}.")


def _imaging(value: Mapping[str, Any], image: ImageShape, *, where: str) -> Imaging:
    """Return what a `preprocessor_config.json` says; what the absence of a key means is ViT's."""
    _check_channels(image)
    size = value.get("size", {"height": 224, "width": 224})
    # What finds objects is given images of any size, whose shape is kept; a network here reads all in one size.
    fitted = "max_size" in value or (isinstance(size, Mapping) and "longest_edge" in size)
    if value.get("do_pad") and not fitted:
        raise Unsupported("images that are padded", where=where)
    resize = _resize(size) if value.get("do_resize", True) else None
    if fitted:
        resize = (image.height, image.width)
    cropped = bool(value.get("do_center_crop", False))
    shown = _resize(value.get("crop_size", {"height": 224, "width": 224})) if cropped else resize
    if isinstance(shown, int) and cropped:
        shown = (shown, shown)
    height, width = shown if isinstance(shown, tuple) else (image.height, image.width)
    normal = bool(value.get("do_normalize", True))
    mean, std = (
        _each(value.get(key, HALF) if normal else plain, image.channels)
        for key, plain in (("image_mean", 0.0), ("image_std", 1.0))
    )
    found = Imaging(
        height=height,
        width=width,
        channels=image.channels,
        mean=mean,
        std=std,
        resize=resize,
        resample=int(value.get("resample", BILINEAR)),
        factor=float(value.get("rescale_factor", 1 / WHOLE)) if value.get("do_rescale", True) else 1.0,
    )
    wrong = list(_problems(found))
    if wrong:
        raise BadFile("; ".join(wrong), where=where)
    return found


def _problems(imaging: Imaging) -> Iterator[str]:
    if not all(imaging.std) or not np.isfinite([*imaging.mean, *imaging.std, imaging.factor]).all():
        yield f"image_mean is {imaging.mean}, image_std is {imaging.std} and rescale_factor is {imaging.factor}"
    resize = (imaging.resize,) if isinstance(imaging.resize, int) else imaging.resize or ()
    sizes = [imaging.height, imaging.width, *resize]
    if not all(1 <= size <= MAX_PIXELS for size in sizes):
        yield f"images become {sizes} pixels"
    if imaging.resample not in RESAMPLINGS:
        yield f"resample is {imaging.resample}"


def _resize(size: Any) -> tuple[int, int] | int:
    if isinstance(size, Mapping) and "shortest_edge" in size:
        return int(size["shortest_edge"])
    if isinstance(size, Mapping):
        return int(size["height"]), int(size["width"])
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _each(value: Any, channels: int) -> tuple[float, ...]:
    """Return a number for each channel, of which one, or three for grey ones, may stand there."""
    numbers = [float(one) for one in value] if isinstance(value, Sequence) else [float(value)]
    if len(numbers) == 1 or (channels == 1 and len(set(numbers)) == 1):
        return (numbers[0],) * channels
    if len(numbers) != channels:
        raise ValueError(f"{len(numbers)} numbers for {channels} channels")
    return tuple(numbers)
