"""The rival's side of bench/gpu_scaling.sh: training steps of timm + PyTorch on several GPUs of one machine.

DistributedDataParallel over NCCL, one process a GPU, started by this program; compiled, bf16 autocast with fp32
weights, label smoothing 0.1, drop path 0.1, fused AdamW; synthetic images on the device. In turns with the whole
group every process also times its own steps without DDP: scaling = speed together over the sum of the speeds alone.
Prints one JSON object a case: median of windows of steps, each window synchronised at its end.
"""

import argparse
import json
import os
import socket
import statistics
import time

import timm
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from timm_gpu import make_model, set_switches

WINDOW_SECONDS = 0.25


def training(name: str, batch: int, device: int, together: bool):
    """A function that makes one step: forward, loss, backward (with all-reduce), AdamW."""
    torch.manual_seed(0)
    model, side, classes = make_model(name)
    model = model.cuda(device).train()
    images = torch.randn(batch, 3, side, side, device=device)
    if name.startswith("resnet"):
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % classes
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
    criterion = torch.compile(torch.nn.CrossEntropyLoss(label_smoothing=0.1))
    if together:
        model = DistributedDataParallel(model, device_ids=[device], gradient_as_bucket_view=True,
                                        static_graph=True)
    network = torch.compile(model)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = criterion(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def window(step, steps: int) -> float:
    """Seconds a step."""
    dist.barrier()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps


def agree(value: float, device: int, op=dist.ReduceOp.MAX) -> float:
    tensor = torch.tensor([value], dtype=torch.float64, device=device)
    dist.all_reduce(tensor, op=op)
    return tensor.item()


def measure(name: str, batch: int, seconds: float, device: int) -> dict:
    torch._dynamo.reset()
    alone, together = (training(name, batch, device, ddp) for ddp in (False, True))
    for _ in range(8):
        alone()
        together()
    trial = agree(window(together, 3), device)
    steps = max(1, int(WINDOW_SECONDS / trial))
    rounds = max(5, int(seconds / (2 * steps * trial)))
    times = [(agree(window(together, steps), device), window(alone, steps)) for _ in range(rounds)]
    size = dist.get_world_size()
    median = statistics.median(t for t, _ in times)
    speeds_alone = agree(batch / statistics.median(t for _, t in times), device, dist.ReduceOp.SUM)
    return {"side": "timm", "model": name, "batch": batch, "world_size": size, "ms": 1e3 * median,
            "images_per_s": size * batch / median, "scaling": size * batch / median / speeds_alone,
            "rounds": rounds, "peak_mib": torch.cuda.max_memory_allocated() / 2**20,
            "device": torch.cuda.get_device_name(), "torch": torch.__version__,
            "nccl": ".".join(map(str, torch.cuda.nccl.version())), "timm": timm.__version__}


def run_rank(rank: int, size: int, port: int, cases: list[str], seconds: float) -> None:
    torch.cuda.set_device(rank)
    set_switches()
    dist.init_process_group("nccl", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size,
                            device_id=torch.device("cuda", rank))
    for case in cases:
        name, batch = case.split(":")
        row = measure(name, int(batch), seconds, rank)
        if rank == 0:
            print(json.dumps(row), flush=True)
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="+", metavar="MODEL:BATCH", help="BATCH: images a GPU")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--ranks", type=int, default=torch.cuda.device_count())
    args = parser.parse_args()
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        port = any_port.getsockname()[1]
    torch.multiprocessing.spawn(run_rank, (args.ranks, port, args.cases, args.seconds), nprocs=args.ranks)


if __name__ == "__main__":
    main()
