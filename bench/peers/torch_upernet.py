"""The rival's side of the segmentation benchmark: UPerNet on DeiT-S in PyTorch, eager or compiled.

Written after the papers with the framework's own operations: UPerNet at 512 channels on blocks 2, 5,
8 and 11, auxiliary FCN head of 256 channels, 150 classes; cross-entropy at full resolution with
weight 0.4 on the auxiliary one, drop path 0.1, dropout 0.1. Synthetic images and labels on the
device, fused AdamW, bf16 autocast with fp32 weights, channels-last heads. Prints one JSON object:
median of windows of steps, each window synchronised at its end.
"""

import argparse
import json
import statistics

import torch
from torch import nn
from torch.nn import functional as F

from windows import measure

CLASSES, CHANNELS = 150, 512


class DropPath(nn.Module):
    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        return x * (torch.rand(len(x), 1, 1, device=x.device, dtype=x.dtype) < keep) / keep


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, drop_path: float):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        x = x + self.drop_path(self.proj(mixed))
        return x + self.drop_path(self.fc2(F.gelu(self.fc1(self.norm2(x)))))


class DeitSmall(nn.Module):
    def __init__(self, side: int, dim: int = 384, heads: int = 6, depth: int = 12):
        super().__init__()
        self.grid = side // 16
        self.patch_embed = nn.Conv2d(3, dim, 16, 16)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, self.grid**2 + 1, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, 0.1 * i / (depth - 1)) for i in range(depth))

    def forward(self, images):
        x = self.patch_embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i % 3 == 2:
                maps.append(x[:, 1:].transpose(1, 2).unflatten(2, (self.grid, self.grid)))
        return maps


def conv_norm(cin: int, cout: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, kernel, padding=kernel // 2, bias=False),
                         nn.BatchNorm2d(cout), nn.ReLU(inplace=True))


def resize(x, size):
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


class UPerNet(nn.Module):
    def __init__(self, side: int, dim: int = 384):
        super().__init__()
        self.backbone = DeitSmall(side, dim)
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(s), conv_norm(dim, CHANNELS, 1))
            for s in (1, 2, 3, 6))
        self.bottleneck = conv_norm(dim + 4 * CHANNELS, CHANNELS, 3)
        self.laterals = nn.ModuleList(conv_norm(dim, CHANNELS, 1) for _ in range(3))
        self.smooth = nn.ModuleList(conv_norm(CHANNELS, CHANNELS, 3) for _ in range(3))
        self.fusion = conv_norm(4 * CHANNELS, CHANNELS, 3)
        self.classify = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(CHANNELS, CLASSES, 1))
        self.auxiliary = nn.Sequential(conv_norm(dim, 256, 3), nn.Dropout2d(0.1),
                                       nn.Conv2d(256, CLASSES, 1))

    def forward(self, images):
        maps = self.backbone(images)
        size = maps[-1].shape[2:]
        pooled = [maps[-1]] + [resize(pool(maps[-1]), size) for pool in self.pools]
        levels = [lateral(x) for lateral, x in zip(self.laterals, maps)]
        levels.append(self.bottleneck(torch.cat(pooled, 1)))
        for i in (3, 2, 1):
            levels[i - 1] = levels[i - 1] + resize(levels[i], levels[i - 1].shape[2:])
        levels = [smooth(x) for smooth, x in zip(self.smooth, levels)] + [levels[3]]
        levels = [resize(x, levels[0].shape[2:]) for x in levels]
        logits = self.classify(self.fusion(torch.cat(levels, 1)))
        return (logits, self.auxiliary(maps[-1])) if self.training else logits


def make_step(batch: int, side: int, mode: str):
    model = UPerNet(side).cuda().train().to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, side, side, device="cuda")
    labels = torch.arange(batch * side * side, device="cuda").view(batch, side, side) % CLASSES
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)

    def loss_of(x, y):
        logits, auxiliary = model(x)
        size = y.shape[1:]
        return (F.cross_entropy(resize(logits, size).float(), y, ignore_index=255)
                + 0.4 * F.cross_entropy(resize(auxiliary, size).float(), y, ignore_index=255))

    loss_function = torch.compile(loss_of) if mode == "compile" else loss_of

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = loss_function(images, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--mode", choices=("eager", "compile"), default="compile")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--warm-up", type=int, default=8)
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    windows = measure(make_step(args.batch, args.side, args.mode), args.seconds, args.warm_up)
    median = statistics.median(windows)
    print(json.dumps({
        "side": "torch", "model": "upernet_deit_small", "batch": args.batch, "pixels": args.side,
        "work": "train", "mode": args.mode, "ms": 1e3 * median,
        "images_per_s": args.batch / median, "windows": len(windows),
        "spread": (max(windows) - min(windows)) / median,
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20,
        "device": torch.cuda.get_device_name(), "torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
