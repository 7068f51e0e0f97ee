"""The rival's side of the loader benchmark: timm's create_loader with the DeiT augmentation, on the CPU.

RandAugment rand-m9-mstd0.5-inc1, bicubic random resized crops of 224 px, flips, random erasing 0.25, mixup and
cutmix. Each way of timm is measured in turn and the fastest is what counts: everything in the workers, or bytes from the workers and the
rest (normalisation, erasing) in the prefetcher. Prints one JSON object.
"""

import argparse
import json
import os
import time

import PIL
import timm
import torch
from timm.data import ImageDataset, Mixup, create_loader


def make_loader(folder: str, batch: int, workers: int, prefetcher: bool):
    mixup = dict(mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5, mode="batch",
                 label_smoothing=0.1, num_classes=1000)
    options = {}
    if prefetcher:
        from timm.data import FastCollateMixup
        options["collate_fn"] = FastCollateMixup(**mixup)
    loader = create_loader(
        ImageDataset(folder), input_size=(3, 224, 224), batch_size=batch, is_training=True,
        use_prefetcher=prefetcher, re_prob=0.25, re_mode="pixel", re_count=1, hflip=0.5,
        auto_augment="rand-m9-mstd0.5-inc1", interpolation="bicubic", scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
        num_workers=workers, persistent_workers=workers > 0, pin_memory=False,
        device=torch.device("cpu"), **options)
    return loader, None if prefetcher else Mixup(**mixup)


def measure(folder: str, batch: int, workers: int, prefetcher: bool, seconds: float) -> float:
    """Images per second after a warm-up of one pass, which starts the workers."""
    loader, mixup = make_loader(folder, batch, workers, prefetcher)
    images, begin = 0, None
    while True:
        for data, target in loader:
            if begin is not None:
                if mixup is not None:
                    data, target = mixup(data, target)
                images += data.shape[0]
                elapsed = time.perf_counter() - begin
                if elapsed >= seconds:
                    return images / elapsed
        if begin is None:
            begin = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", help="DIR/<class>/<image>")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rates = {}
    for workers in sorted({0, args.workers} if args.workers == 1 else {args.workers}):
        for prefetcher in (False, True):
            name = f"{workers} workers, {'prefetcher' if prefetcher else 'all in workers'}"
            rates[name] = measure(args.folder, args.batch, workers, prefetcher, args.seconds)
    print(json.dumps({"images_per_s": max(rates.values()), "ways": rates, "timm": timm.__version__,
                      "torch": torch.__version__, "pillow": PIL.__version__,
                      "cores": len(os.sched_getaffinity(0))}))


if __name__ == "__main__":
    main()
