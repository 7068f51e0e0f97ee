"""The rival's side of the structure benchmarks: token merging and removed attention on timm's DeiT.

Token merging is written here from the paper (Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023)
in the straightforward way: cosine similarity of mean keys, sort, gather, scatter; proportional attention by
an additive mask; r tokens in every block that has attention. Removed attention is the structure that dilution
leaves (Lin et al., "MLP Can Be a Good Transformer Learner", CVPR 2024): norm1 and attention are gone and the
identity beside them is doubled. Protocols as in timm_gpu.py; fp32 runs plain attention without TF32.
"""

import argparse
import json
import statistics

import timm
import torch
import torch.nn.functional as F

from timm_gpu import MODES, inference, set_switches, training
from windows import measure


def match(keys: torch.Tensor, r: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Numbers within A (even tokens) of the kept and the merged ones, and within B of their partners."""
    with torch.no_grad():
        unit = F.normalize(keys, dim=-1)
        scores = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)
        scores[:, 0] = -torch.inf  # the class token stays
        best, partner = scores.max(-1)
        order = best.argsort(-1, descending=True)
        merged = order[:, :r]
        return order[:, r:].sort(-1).values, merged, partner.gather(1, merged)


def add_up(x: torch.Tensor, kept: torch.Tensor, merged: torch.Tensor,
           partner: torch.Tensor) -> torch.Tensor:
    def rows(index: torch.Tensor) -> torch.Tensor:
        return index.unsqueeze(-1).expand(-1, -1, x.shape[-1])

    a, b = x[:, ::2], x[:, 1::2]
    b = b.scatter_reduce(1, rows(partner), a.gather(1, rows(merged)), "sum")
    return torch.cat([a.gather(1, rows(kept)), b], 1)


class Block(torch.nn.Module):
    def __init__(self, block: torch.nn.Module, r: int, attends: bool, plain: bool):
        super().__init__()
        self.block, self.r, self.attends, self.plain = block, r if attends else 0, attends, plain
        if not attends:
            block.attn = block.norm1 = torch.nn.Identity()

    def attention(self, x: torch.Tensor, sizes) -> tuple[torch.Tensor, torch.Tensor]:
        attn = self.block.attn
        batch, tokens, width = x.shape
        qkv = attn.qkv(x).reshape(batch, tokens, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        bias = None if sizes is None else sizes.log().to(q.dtype).view(batch, 1, 1, tokens)
        if self.plain:
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
            mixed = (scores if bias is None else scores + bias).softmax(-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return attn.proj(mixed.transpose(1, 2).reshape(batch, tokens, width)), k.mean(1)

    def forward(self, x: torch.Tensor, sizes):
        block = self.block
        if not self.attends:
            x = 2 * x
        else:
            branch, keys = self.attention(block.norm1(x), sizes)
            x = x + block.drop_path1(branch)
            if self.r > 0:
                groups = match(keys, self.r)
                if sizes is None:
                    sizes = torch.ones_like(x[..., :1], dtype=torch.float32)
                x = add_up(x * sizes.to(x.dtype), *groups)
                sizes = add_up(sizes, *groups)
                x = x / sizes.to(x.dtype)
        return x + block.drop_path2(block.mlp(block.norm2(x))), sizes


class Network(torch.nn.Module):
    def __init__(self, model: torch.nn.Module, r: int, removed: set[int], plain: bool):
        super().__init__()
        self.model = model
        self.blocks = torch.nn.ModuleList(
            Block(block, r, number not in removed, plain)
            for number, block in enumerate(model.blocks))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x, sizes = self.model._pos_embed(self.model.patch_embed(images)), None
        for block in self.blocks:
            x, sizes = block(x, sizes)
        return self.model.head(self.model.norm(x)[:, 0])


def make_run(case: dict):
    options = dict(drop_path_rate=0.1 if case["work"] == "train" else 0.0, num_classes=1000)
    model = timm.create_model(case["model"], **options)
    single = case["dtype"] == "fp32"
    if case["r"] or case["removed"] or single:
        model = Network(model, case["r"], set(case["removed"]), single)
    model = model.cuda()
    images = torch.randn(case["batch"], 3, 224, 224, device="cuda")
    labels = torch.arange(case["batch"], device="cuda") % 1000
    if case["work"] == "train":
        return training(model.train(), images, labels, case["mode"], autocast=not single)
    return inference(model, images, case["mode"], half=not single)


def read_case(text: str) -> dict:
    name, batch, work, mode, dtype, r, removed = text.split(":")
    return {"model": name, "batch": int(batch), "work": work, "mode": mode, "dtype": dtype,
            "r": int(r), "removed": [int(number) for number in removed.split(",") if number]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="+", metavar="MODEL:BATCH:WORK:MODE:DTYPE:R:REMOVED",
                        help=f"WORK: train, infer; MODE: {', '.join(MODES)}; DTYPE: half (bf16 "
                        "autocast, fp16 inference) or fp32; R: tokens merged a block; REMOVED: "
                        "blocks without attention, 0,2,4 or nothing")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--warm-up", type=int, default=5)
    args = parser.parse_args()
    for text in args.cases:
        case = read_case(text)
        torch.manual_seed(0)
        torch._dynamo.reset()
        torch.cuda.empty_cache()
        set_switches(tf32=case["dtype"] != "fp32")
        record = {"side": "timm", **case, "device": torch.cuda.get_device_name(),
                  "torch": torch.__version__, "timm": timm.__version__}
        try:
            windows = measure(make_run(case), args.seconds, args.warm_up)
        except Exception as error:  # a compiler that gives up must not end the other cases
            print(json.dumps({**record, "error": repr(error)[:300]}), flush=True)
            continue
        median = statistics.median(windows)
        print(json.dumps({**record, "ms": 1e3 * median, "images_per_s": case["batch"] / median,
                          "windows": len(windows),
                          "spread": (max(windows) - min(windows)) / median}), flush=True)


if __name__ == "__main__":
    main()
