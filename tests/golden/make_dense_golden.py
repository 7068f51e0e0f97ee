"""Prints what OpenCV, and a numpy form of mmsegmentation's training pipeline, make of a pattern.

Not run by the tests, which hold the numbers. To print them again:
    pip install numpy opencv-python-headless
    python tests/golden/make_dense_golden.py
Random numbers are those of runner/core/random.h, derived anew: Philox4x32-10 (Salmon et al. 2011).
"""

import zlib

import cv2
import numpy as np

MASK = (1 << 32) - 1
AUGMENT = 4  # Purpose::Augment
CROP, FLIP, SCALE, COLORS = 0, 1, 4, 5  # AugmentStage


def mix64(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) % 2**64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return value ^ (value >> 31)


class Stream:
    def __init__(self, seed: int, sample: int, stage: int):
        key = mix64(mix64(seed) ^ AUGMENT)
        self.key = key & MASK, key >> 32
        self.counter = [0, stage, sample & MASK, sample >> 32]
        self.words = []

    def next(self) -> int:
        if not self.words:
            self.words = self.block()
            self.counter[0] += 1
        return self.words.pop(0)

    def block(self) -> list:
        c, k = list(self.counter), list(self.key)
        for _ in range(10):
            p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & MASK, (p0 >> 32) ^ c[3] ^ k[1], p0 & MASK]
            k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
        return c

    def uniform(self, low: float, high: float) -> float:
        upper, lower = self.next() >> 5, self.next() >> 6
        return low + (high - low) * ((upper << 26 | lower) * 2.0**-53)

    def below(self, n: int) -> int:
        while True:
            product = self.next() * n
            if (product & MASK) >= 2**32 % n:
                return product >> 32


def pattern(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    channels = 37 * x + 59 * y, 83 * x + 29 * y + 64, 17 * x + 101 * y + 128
    return (np.stack(channels, -1) % 256).astype(np.uint8)


def label_pattern(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    labels = (x // 17 + y // 13 * 3) % 5
    return np.where((x + 2 * y) % 11 == 0, 255, labels).astype(np.uint8)


def hsv_to_rgb(hsv: np.ndarray) -> np.ndarray:
    """OpenCV's vector code, which cuts where its code for single pixels rounds."""
    one = np.float32(1)
    h = hsv[..., 0].astype(np.float32) * np.float32(6 / 180)
    s, v = (hsv[..., i].astype(np.float32) * np.float32(1 / 255) for i in (1, 2))
    sector = np.floor(h).astype(int)
    f = (h - sector).astype(np.float32)
    low, falling, rising = v * (one - s), v * (one - s * f), v * (one - s * (one - f))
    table = [(v, rising, low), (falling, v, low), (low, v, rising), (low, falling, v),
             (rising, low, v), (v, low, falling)]
    rgb = np.zeros(hsv.shape, np.float32)
    for k, parts in enumerate(table):
        for c, part in enumerate(parts):
            rgb[..., c] = np.where(sector == k, part, rgb[..., c])
    result = (rgb * np.float32(255)).astype(np.uint8)
    assert np.abs(result.astype(int) - cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)).max() <= 1
    return result


def scale_values(image: np.ndarray, factor: float, offset: float = 0) -> np.ndarray:
    values = image.astype(np.float32) * np.float32(factor) + np.float32(offset)
    return np.clip(values, 0, 255).astype(np.uint8)


def distort(image: np.ndarray, random: Stream) -> np.ndarray:
    def contrast(img):
        return scale_values(img, random.uniform(0.5, 1.5)) if random.below(2) else img

    if random.below(2):
        image = scale_values(image, 1, random.uniform(-32, 32))
    first = random.below(2)
    if first:
        image = contrast(image)
    if random.below(2):
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = scale_values(hsv[..., 1], random.uniform(0.5, 1.5))
        image = hsv_to_rgb(hsv)
    if random.below(2):
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + random.below(36) - 18) % 180
        image = hsv_to_rgb(hsv)
    return image if first else contrast(image)


def pipeline(image: np.ndarray, labels: np.ndarray, seed: int, sample: int, side: int):
    height, width = labels.shape
    u = Stream(seed, sample, SCALE).uniform(0.5, 2.0)
    frame = int(4 * side * u), int(side * u)
    factor = min(frame[0] / max(height, width), frame[1] / min(height, width))
    size = int(width * factor + 0.5), int(height * factor + 0.5)
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    random = Stream(seed, sample, CROP)
    for draw in range(11):
        top = random.below(max(size[1] - side, 0) + 1)
        left = random.below(max(size[0] - side, 0) + 1)
        part = labels[top:top + side, left:left + side]
        counts = np.bincount(part[part != 255], minlength=256)
        if (counts > 0).sum() > 1 and counts.max() / counts.sum() < 0.75:
            break
    image, labels = image[top:top + side, left:left + side], part
    if Stream(seed, sample, FLIP).uniform(0, 1) < 0.5:
        image, labels = image[:, ::-1], labels[:, ::-1]
    image = distort(np.ascontiguousarray(image), Stream(seed, sample, COLORS))
    return image, np.ascontiguousarray(labels)


def crc(values: np.ndarray) -> str:
    return f"0x{zlib.crc32(values.tobytes()):08x}"


def main() -> None:
    for width, height in (5, 5), (13, 11), (7, 16), (64, 48):
        out = cv2.resize(pattern(32, 32), (width, height), interpolation=cv2.INTER_LINEAR)
        labels = cv2.resize(label_pattern(32, 32), (width, height), interpolation=cv2.INTER_NEAREST)
        print(f"resize 32x32 -> {width}x{height}: {crc(out)}, labels {crc(labels)}")
    hsv = cv2.cvtColor(pattern(32, 32), cv2.COLOR_RGB2HSV)
    print(f"hsv {crc(hsv)}, back {crc(hsv_to_rgb(hsv))}")
    for sample in range(12):
        image, labels = pipeline(pattern(90, 61), label_pattern(90, 61), 7, sample, 48)
        print(f"{{{sample}, {image.shape[1]}, {image.shape[0]}, {crc(image)}, {crc(labels)}}},")


if __name__ == "__main__":
    main()
