"""The rival's side of the GPU benchmarks: timm + PyTorch, eager, compiled, or captured into one graph.

Synthetic images on the device; label smoothing 0.1, drop path 0.1 (transformers), fused AdamW, bf16
autocast with fp32 weights; inference in fp16. Modes: eager; compile, torch.compile as it comes;
autotune, with its own search for kernels; graph, graph_compile and graph_autotune, the same as one
CUDA graph of a whole step or pass. Prints one JSON object a case: median of windows of steps, each
window synchronised at its end.
"""

import argparse
import json
import statistics

import timm
import torch

from windows import measure

MODES = ("eager", "compile", "autotune", "graph", "graph_compile", "graph_autotune")
CIFAR_VIT = dict(img_size=32, patch_size=4, num_classes=100)


def make_model(name: str) -> tuple[torch.nn.Module, int, int]:
    """Model, side of its input, classes."""
    if name == "vit_tiny_patch4_32":
        return (timm.create_model("vit_tiny_patch16_224", drop_path_rate=0.1, **CIFAR_VIT), 32, 100)
    options = {} if name.startswith("resnet") else dict(drop_path_rate=0.1)
    return timm.create_model(name, num_classes=1000, **options), 224, 1000


def compiled(function, mode: str):
    if mode.endswith("autotune"):
        return torch.compile(function, mode="max-autotune-no-cudagraphs")
    return torch.compile(function) if mode.endswith("compile") else function


def captured(run):
    """A function that replays one call of `run`."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(4):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        run()

    def replay() -> None:
        graph.replay()

    replay.captured = run  # holds the parameters, which the graph reads but does not own
    return replay


def training(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, mode: str,
             autocast: bool = True):
    """A function that makes one step: forward, loss, backward, AdamW."""
    graph = mode.startswith("graph")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True,
                                  capturable=graph)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    loss_of = compiled(lambda x, y: criterion(model(x), y), mode)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast, cache_enabled=not graph):
            loss = loss_of(images, labels)
        loss.backward()
        optimizer.step()
        # In a graph, too: backward then writes gradients into the graph's memory, without clearing it
        # first and adding to it.
        optimizer.zero_grad(set_to_none=True)

    return captured(step) if graph else step


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
    network = compiled(model, mode)

    def run() -> None:
        with torch.inference_mode():
            network(images)

    return captured(run) if mode.startswith("graph") else run


def set_switches(tf32: bool = True) -> None:
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    torch._dynamo.config.recompile_limit = 64  # models side by side must not fall back to eager


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="+", metavar="MODEL:BATCH:WORK:MODE",
                        help=f"WORK: train, infer; MODE: {', '.join(MODES)}")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--copies", type=int, default=1, help="models side by side, in streams")
    args = parser.parse_args()
    set_switches()

    for case in args.cases:
        name, batch, work, mode = case.split(":")
        if work not in ("train", "infer") or mode not in MODES:
            parser.error(f"{case}: WORK is train or infer, MODE one of {', '.join(MODES)}")
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
