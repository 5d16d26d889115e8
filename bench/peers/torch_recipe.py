#!/usr/bin/env python3
"""nanoGPT's recipe for a CPU in PyTorch: time, memory, and the loss over the whole validation split.

usage: torch_recipe.py TEXT [STEPS] [SEED]

Characters, the first 90 % train; 4 layers, 4 heads, dim 128, context 64, batch 12; AdamW 1e-3 → 1e-4 along a cosine
after a warm-up of 100 steps, betas 0.9 and 0.99, decay 0.1 of matrices, clip 1, no dropout, no bias.
"""
import json
import math
import resource
import sys
import time

begin = time.perf_counter()
import torch

from torch_work import Gpt, groups

CONTEXT, BATCH, WARMUP, HIGH, LOW = 64, 12, 100, 1e-3, 1e-4


def rate(step, steps):
    if step < WARMUP:
        return HIGH * (step + 1) / (WARMUP + 1)
    return LOW + 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / max(1, steps - WARMUP))) * (HIGH - LOW)


def whole(model, split):
    """Mean over every target, in windows that follow each other."""
    n = len(split) - 1
    full = n // CONTEXT * CONTEXT
    x, y = split[:full].view(-1, CONTEXT), split[1 : full + 1].view(-1, CONTEXT)
    with torch.no_grad():
        total = sum(model(a, b, "sum").item() for a, b in zip(x.split(64), y.split(64)))
        if full < n:
            total += model(split[full:n][None], split[full + 1 : n + 1][None], "sum").item()
    return total / n


def main():
    text = open(sys.argv[1], encoding="utf-8").read()
    steps, seed = [int(a) for a in sys.argv[2:]] + [2000, 1337][len(sys.argv) - 2 :]
    torch.manual_seed(seed)
    characters = sorted(set(text))
    index = {c: i for i, c in enumerate(characters)}
    data = torch.tensor([index[c] for c in text])
    train, validation = data[: len(data) * 9 // 10], data[len(data) * 9 // 10 :]
    model = Gpt(4, 4, 128, CONTEXT, len(characters))
    optimizer = torch.optim.AdamW(groups(model, 0.1), betas=(0.9, 0.99), fused=True)
    for i in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(i, steps)
        starts = torch.randint(len(train) - CONTEXT, (BATCH,))
        x = torch.stack([train[a : a + CONTEXT] for a in starts])
        y = torch.stack([train[a + 1 : a + CONTEXT + 1] for a in starts])
        loss = model(x, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    print(json.dumps({"loss": whole(model, validation), "seconds": time.perf_counter() - begin,
                      "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024e-6}))


if __name__ == "__main__":
    main()
