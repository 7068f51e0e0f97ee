"""How the rivals' GPU benchmarks take time: as ablate-train does."""

import time

import torch


def measure(run, seconds: float, warm_up: int) -> list[float]:
    """Seconds a step, one entry a window of about a quarter of a second."""
    for _ in range(warm_up):
        run()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    steps = max(1, int(0.25 / ((time.perf_counter() - start) / 3)))
    windows = []
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(windows) < 5:
        start = time.perf_counter()
        for _ in range(steps):
            run()
        torch.cuda.synchronize()
        windows.append((time.perf_counter() - start) / steps)
    return windows
