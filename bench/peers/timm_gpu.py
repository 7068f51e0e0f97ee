"""The rival's side of the GPU benchmarks: timm + PyTorch, eager, compiled, or captured into one graph.

Synthetic images on the device; label smoothing 0.1, drop path 0.1 (transformers), fused AdamW, bf16
autocast with fp32 weights. Prints one JSON object a case: median of windows of steps, each window
synchronised at its end.
"""

import argparse
import json
import statistics

import timm
import torch

from windows import measure

CIFAR_VIT = dict(img_size=32, patch_size=4, num_classes=100)


def make_model(name: str) -> tuple[torch.nn.Module, int, int]:
    """Model, side of its input, classes."""
    if name == "vit_tiny_patch4_32":
        return (timm.create_model("vit_tiny_patch16_224", drop_path_rate=0.1, **CIFAR_VIT), 32, 100)
    options = {} if name.startswith("resnet") else dict(drop_path_rate=0.1)
    return timm.create_model(name, num_classes=1000, **options), 224, 1000


def training(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, mode: str,
             autocast: bool = True):
    """A function that makes one step: forward, loss, backward, AdamW."""
    graph = mode in ("graph", "graph_compile")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True,
                                  capturable=graph)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    network = torch.compile(model) if mode in ("compile", "graph_compile") else model

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast, cache_enabled=not graph):
            loss = criterion(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=not graph)

    if not graph:
        return step
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(4):
            step()
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured, stream=stream):
        step()

    def replay() -> None:
        captured.replay()

    replay.captured = step  # holds the parameters, which the graph reads but does not own
    return replay


def side_by_side(copies: list):
    """A function that runs all copies, each in a stream of its own."""
    if len(copies) == 1:
        return copies[0]
    streams = [torch.cuda.Stream() for _ in copies]

    def run() -> None:
        for stream, copy in zip(streams, copies):
            with torch.cuda.stream(stream):
                copy()

    return run


def inference(model: torch.nn.Module, images: torch.Tensor, mode: str, half: bool = True):
    model = model.eval()
    if half:
        model, images = model.half(), images.half()
    network = torch.compile(model) if mode == "compile" else model

    def run() -> None:
        with torch.inference_mode():
            network(images)

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="+", metavar="MODEL:BATCH:WORK:MODE",
                        help="WORK: train, infer; MODE: eager, compile, graph, graph_compile")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--copies", type=int, default=1, help="models side by side, in streams")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True

    for case in args.cases:
        name, batch, work, mode = case.split(":")
        torch.manual_seed(0)
        torch._dynamo.reset()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        copies = []
        for _ in range(args.copies):
            model, side, classes = make_model(name)
            model = model.cuda()
            images = torch.randn(int(batch), 3, side, side, device="cuda")
            if name.startswith("resnet"):
                model = model.to(memory_format=torch.channels_last)
                images = images.to(memory_format=torch.channels_last)
            labels = torch.arange(int(batch), device="cuda") % classes
            copies.append(training(model.train(), images, labels, mode) if work == "train"
                          else inference(model, images, mode))
        run = side_by_side(copies)
        windows = measure(run, args.seconds, args.warm_up)
        median = statistics.median(windows)
        print(json.dumps({
            "side": "timm", "model": name, "batch": int(batch), "work": work, "mode": mode,
            "copies": args.copies, "ms": 1e3 * median,
            "images_per_s": args.copies * int(batch) / median, "windows": len(windows),
            "spread": (max(windows) - min(windows)) / median,
            "peak_mib": torch.cuda.max_memory_allocated() / 2**20,
            "device": torch.cuda.get_device_name(), "torch": torch.__version__,
            "timm": timm.__version__}), flush=True)


if __name__ == "__main__":
    main()
