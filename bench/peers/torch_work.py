#!/usr/bin/env python3
"""The work of bench/work.h in PyTorch, with the same words, the same lines in and out.

usage: torch_work.py [--compile] step LAYERS HEADS DIM CONTEXT BATCH VOCABULARY
       torch_work.py attention BATCH HEADS LENGTH DIM
       torch_work.py [--wrapper | --module] layer BATCH LENGTH DIM HEADS

step is the GPT of nanoGPT: eager with fused AdamW, or torch.compile. layer is scaled_dot_product_attention between
Linear layers; --module: nn.MultiheadAttention; --wrapper: a list of single heads.
"""
import json
import math
import resource
import sys
import time
import warnings

import torch
import torch.nn as nn
import torch.nn.functional as F

warnings.filterwarnings("ignore")


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = [z.view(b, t, self.heads, -1).transpose(1, 2) for z in self.qkv(x).chunk(3, -1)]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).reshape(b, t, c))


class Norm(nn.Module):  # LayerNorm without a bias
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, None, 1e-5)


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1, self.norm2 = Norm(dim), Norm(dim)
        self.attention = Attention(dim, heads)
        self.up, self.proj = nn.Linear(dim, 4 * dim, bias=False), nn.Linear(4 * dim, dim, bias=False)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.proj(F.gelu(self.up(self.norm2(x))))


class Gpt(nn.Module):
    def __init__(self, layers, heads, dim, context, vocabulary):
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, dim), nn.Embedding(context, dim)
        self.blocks = nn.ModuleList([Block(dim, heads) for _ in range(layers)])
        self.norm = Norm(dim)
        for name, p in self.named_parameters():
            if p.dim() >= 2:
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * layers) if name.endswith("proj.weight") else 0.02)

    def forward(self, tokens, targets, reduction="mean"):
        x = self.token(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = self.norm(x) @ self.token.weight.T
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)


def groups(model, decay):
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def step(numbers, options):
    layers, heads, dim, context, batch, vocabulary = numbers
    model = Gpt(layers, heads, dim, context, vocabulary)
    optimizer = torch.optim.AdamW(groups(model, 0.1), lr=1e-3, betas=(0.9, 0.99), fused=True)
    run = torch.compile(model) if "--compile" in options else model
    x, y = torch.randint(vocabulary, (batch, context)), torch.randint(vocabulary, (batch, context))

    def repeat(times):
        begin = time.perf_counter()
        loss = run(x, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        times.setdefault("step", []).append(time.perf_counter() - begin)

    return repeat


def attention(numbers, options):
    q, k, v = [torch.randn(numbers, requires_grad=True) for _ in range(3)]
    dy = torch.randn(numbers)

    def repeat(times):
        t0 = time.perf_counter()
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        t1 = time.perf_counter()
        y.backward(dy)
        t2 = time.perf_counter()
        times.setdefault("forward", []).append(t1 - t0)
        times.setdefault("backward", []).append(t2 - t1)
        q.grad = k.grad = v.grad = None

    return repeat


class Heads(nn.Module):
    """One small layer for each head, the results side by side."""

    def __init__(self, dim, heads, length):
        super().__init__()
        self.heads = nn.ModuleList(
            [nn.ModuleList([nn.Linear(dim, dim // heads, bias=False) for _ in range(3)]) for _ in range(heads)])
        self.proj = nn.Linear(dim, dim)
        self.register_buffer("above", torch.triu(torch.ones(length, length), 1).bool())

    def forward(self, x):
        results = []
        for projections in self.heads:
            q, k, v = [p(x) for p in projections]
            scores = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).masked_fill(self.above, -math.inf)
            results.append(torch.softmax(scores, -1) @ v)
        return self.proj(torch.cat(results, -1))


def layer(numbers, options):
    batch, length, dim, heads = numbers
    if "--module" in options:
        inner = nn.MultiheadAttention(dim, heads, batch_first=True)
        above = torch.triu(torch.ones(length, length), 1).bool()

        def model(x):
            return inner(x, x, x, attn_mask=above, need_weights=True)[0]

        parameters = list(inner.parameters())
    else:
        model = Heads(dim, heads, length) if "--wrapper" in options else Attention(dim, heads)
        parameters = list(model.parameters())
    x, dy = torch.randn(batch, length, dim, requires_grad=True), torch.ones(batch, length, dim)

    def repeat(times):
        t0 = time.perf_counter()
        y = model(x)
        t1 = time.perf_counter()
        y.backward(dy)
        t2 = time.perf_counter()
        times.setdefault("forward", []).append(t1 - t0)
        times.setdefault("forward + backward", []).append(t2 - t0)
        x.grad = None
        for p in parameters:
            p.grad = None

    return repeat


def main():
    options = {a for a in sys.argv[1:] if a.startswith("--")}
    kind, *numbers = [a for a in sys.argv[1:] if not a.startswith("--")]
    torch.manual_seed(1)
    repeat = {"step": step, "attention": attention, "layer": layer}[kind](list(map(int, numbers)), options)
    repeat({})  # compiling is not part of it
    print(json.dumps({"ready": True, "version": "PyTorch " + torch.__version__.split("+")[0]}), flush=True)
    for line in sys.stdin:
        times = {}
        for _ in range(int(line)):
            repeat(times)
        result = {name: [min(t), sorted(t)[len(t) // 2]] for name, t in times.items()}
        result["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024e-6
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
