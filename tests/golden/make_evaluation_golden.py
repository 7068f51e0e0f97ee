"""Writes what timm's evaluation gives for image files: crops, normalised pixels, logits.

Not run by the tests, which read the files beside this script. To make them again:
    pip install timm==1.0.29 pillow
    python tests/golden/make_evaluation_golden.py [FOLDER OF PHOTOS]
It draws three JPEGs (evaluation_*.jpg), and weights for a small transformer at 224 px. For each image and
each way of cutting it the CRC-32 of the 8-bit crop is kept, and for the first two ways the logits in
float64 and three rows of normalised pixels. With a folder, CRC-32 and logits of all JPEGs below it, in
order of their paths, go to evaluation_photos.safetensors.
"""

import io
import math
import pathlib
import sys
import zlib

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform
from timm.models.vision_transformer import VisionTransformer

from make_timm_golden import draw_weights

FOLDER = pathlib.Path(__file__).parent
ROWS = [0, 111, 223]
# Side, crop_pct, filter: DeiT's, timm's for DeiT weights, whole short side, ResNet's, DeiT's at 384.
WAYS = [(224, 0.875, "bicubic"), (224, 0.9, "bicubic"), (224, 1.0, "bicubic"), (224, 0.875, "bilinear"),
        (384, 0.875, "bicubic")]


def draw(width: int, height: int, phase: float) -> np.ndarray:
    """Waves of all lengths with edges: what resizing and chroma subsampling treat differently."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    channels = []
    for c in range(3):
        chirp = np.sin(phase + c + x * x / (4.0 * width) + y * (0.05 + 0.02 * c))
        disc = (np.hypot(x - width * (0.3 + 0.2 * c), y - height * 0.5) < min(width, height) * 0.3) * 60
        channels.append(128 + 60 * chirp + disc - 0.1 * y)
    return np.clip(np.stack(channels, -1), 0, 255).astype(np.uint8)


def write_images() -> list[pathlib.Path]:
    files = []
    for name, size, phase, options in [("wide", (500, 375), 0.0, {"subsampling": 2, "quality": 80}),
                                       ("tall", (301, 400), 1.0, {"subsampling": 0, "quality": 80}),
                                       ("grey", (120, 90), 2.0, {"quality": 90})]:
        image = Image.fromarray(draw(*size, phase))
        if name == "grey":
            image = image.convert("L")
        files.append(FOLDER / f"evaluation_{name}.jpg")
        image.save(files[-1], **options)
    return files


def transform(side: int, crop_pct: float, interpolation: str):
    return create_transform((3, side, side), is_training=False, crop_pct=crop_pct, interpolation=interpolation,
                            mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def crop(steps, image: Image.Image) -> tuple[Image.Image, int]:
    """The 8-bit part of a transform, and the CRC-32 of what it gives."""
    for step in steps.transforms[:2]:
        image = step(image)
    return image, zlib.crc32(np.asarray(image).tobytes())


def make_model() -> VisionTransformer:
    model = VisionTransformer(img_size=224, patch_size=16, embed_dim=12, depth=2, num_heads=2, num_classes=10)
    draw_weights(model, torch.Generator().manual_seed(4))
    return model


def evaluate(model: VisionTransformer, files: list[pathlib.Path], ways) -> dict[str, torch.Tensor]:
    output = {}
    for number, way in enumerate(ways):
        steps = transform(*way)
        crcs, logits, rows = [], [], []
        for file in files:
            image = Image.open(io.BytesIO(file.read_bytes())).convert("RGB")
            assert steps.transforms[0].size == math.floor(way[0] / way[1])
            cut, crc = crop(steps, image)
            crcs.append(crc)
            pixels = cut
            for step in steps.transforms[2:]:
                pixels = step(pixels)
            rows.append(pixels[:, ROWS])
            if way[0] == 224:
                with torch.no_grad():
                    logits.append(model(pixels.double()[None])[0])
        output[f"crc.{number}"] = torch.tensor(crcs, dtype=torch.int64)
        if number < 2:
            output[f"logits.{number}"] = torch.stack(logits)
            output[f"rows.{number}"] = torch.stack(rows)
    return output


def main() -> None:
    torch.set_num_threads(1)
    model = make_model()
    made_by = {"made_by": f"timm {timm.__version__}, torch {torch.__version__}, Pillow {Image.__version__}"}
    save_file(model.state_dict(), FOLDER / "evaluation_weights.safetensors", made_by)
    model = model.double().eval()
    save_file(evaluate(model, write_images(), WAYS), FOLDER / "evaluation_output.safetensors", made_by)
    if len(sys.argv) > 1:
        photos = sorted(pathlib.Path(sys.argv[1]).rglob("*.JPEG"))
        output = evaluate(model, photos, WAYS[:2])
        output = {key: value for key, value in output.items() if not key.startswith("rows")}
        save_file(output, FOLDER / "evaluation_photos.safetensors", made_by)


if __name__ == "__main__":
    main()
