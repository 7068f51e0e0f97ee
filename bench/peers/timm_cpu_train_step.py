"""The rival's side of bench/cpu_train_step.sh: a training step of timm + PyTorch eager on the CPU.

ViT of width 192, 12 blocks, 3 heads, patch 4 at 32 x 32, 100 classes; cross-entropy with label
smoothing 0.1, AdamW, synthetic images. Prints one JSON object.
"""

import argparse
import json
import statistics
import time

import timm
import torch
from timm.models.vision_transformer import VisionTransformer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--optimizer", choices=["default", "fused"], default="fused")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = VisionTransformer(img_size=32, patch_size=4, embed_dim=192, depth=12, num_heads=3,
                              num_classes=100).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05,
                                  fused=args.optimizer == "fused" or None)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    images = torch.randn(args.batch, 3, 32, 32)
    labels = torch.arange(args.batch) % 100

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    for _ in range(args.warm_up):
        step()
    seconds = []
    begin = time.perf_counter()
    while time.perf_counter() - begin < args.seconds or len(seconds) < 3:
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    print(json.dumps({"p50_ms": 1e3 * median, "images_per_s": args.batch / median,
                      "reps": len(seconds), "timm": timm.__version__, "torch": torch.__version__,
                      "optimizer": args.optimizer}))


if __name__ == "__main__":
    main()
