#!/usr/bin/env python3
"""Makes tests/golden/gpt2.json: what PyTorch computes in float64 for a tiny GPT-2, for the parity tests.

    pip install torch numpy
    python3 tools/golden_gpt2.py

Two runs write the same file. It holds the weights, ten fixed batches (B, T) of inputs and targets, and
  logits, loss, gradients   of the first batch, before any training; the loss is the mean over the B * T targets
  adamw.losses              the ten losses while training one AdamW step on each batch (losses[0] is the loss above)
all with the tanh form of GELU, which is GPT-2's:  x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))); and under "gelu_erf"
the logits, loss and losses of the same weights with the exact form,  x/2 (1 + erf(x / sqrt(2))).

Weights of linear layers are [out, in]. The rows of attention.qkv are q, k and v of C rows each, head h beginning at
h * C/H in each of them. The head is the token embedding (tied, without bias), whose gradient is the sum of both uses.
Keys' biases have a gradient of zero: softmax does not change when the same number is added to every score.
"""
import copy
import os

import torch
import torch.nn as nn
import torch.nn.functional as F

from golden_json import normal, write

V, T, L, H, C, B, STEPS = 17, 8, 2, 2, 12, 3, 10


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(C, 3 * C)
        self.proj = nn.Linear(C, C)

    def forward(self, x):
        heads = self.qkv(x).reshape(*x.shape[:2], 3, H, C // H)             # (B, T, 3, H, D)
        q, k, v = heads.permute(2, 0, 3, 1, 4)                              # (B, H, T, D) each
        scores = q @ k.transpose(-1, -2) / (C // H) ** 0.5
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        y = scores.masked_fill(future, float("-inf")).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, gelu):
        super().__init__()
        self.up = nn.Linear(C, 4 * C)
        self.down = nn.Linear(4 * C, C)
        self.gelu = gelu

    def forward(self, x):
        return self.down(F.gelu(self.up(x), approximate=self.gelu))


class Block(nn.Module):
    def __init__(self, gelu):
        super().__init__()
        self.norm1 = nn.LayerNorm(C, eps=1e-5)
        self.attention = Attention()
        self.norm2 = nn.LayerNorm(C, eps=1e-5)
        self.mlp = Mlp(gelu)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Gpt(nn.Module):
    def __init__(self, gelu):
        super().__init__()
        self.token_embedding = nn.Embedding(V, C)
        self.position_embedding = nn.Embedding(T, C)
        self.blocks = nn.ModuleList([Block(gelu) for _ in range(L)])
        self.norm = nn.LayerNorm(C, eps=1e-5)

    def forward(self, tokens):
        x = self.token_embedding(tokens) + self.position_embedding.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.token_embedding.weight.T


def loss_of(model, batch):
    return F.cross_entropy(model(batch["inputs"]).flatten(0, 1), batch["targets"].flatten())


def train(model, batches, settings):
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}],
        lr=settings["learning_rate"], betas=(settings["beta1"], settings["beta2"]), eps=settings["epsilon"])
    losses = []
    for batch in batches:
        loss = loss_of(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main():
    torch.manual_seed(1)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    batches = [{"inputs": torch.randint(V, (B, T)), "targets": torch.randint(V, (B, T))} for _ in range(STEPS)]
    settings = {"learning_rate": 1e-2, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1}

    # Larger than the usual deviation of 0.02, and norms and biases away from 1 and 0, so that no gradient is trivial.
    model = Gpt("tanh")
    for name, p in model.named_parameters():
        p.data = normal(*p.shape, deviation=0.2) + (1 if "norm" in name and name.endswith("weight") else 0)
    exact = Gpt("none")
    exact.load_state_dict(copy.deepcopy(model.state_dict()))

    golden = {
        "about": f"made by tools/golden_gpt2.py with PyTorch {torch.__version__.split('+')[0]} in float64",
        "config": {"vocab": V, "context": T, "layers": L, "heads": H, "dim": C, "norm_epsilon": 1e-5, "gelu": "tanh",
                   "tied_head": True, "bias": True},
        "weights": copy.deepcopy(dict(model.named_parameters())),
        "batches": batches,
    }
    loss = loss_of(model, batches[0])
    loss.backward()
    golden |= {"logits": model(batches[0]["inputs"]), "loss": loss.item(),
               "gradients": {name: p.grad.clone() for name, p in model.named_parameters()},
               "adamw": settings | {"decays": "parameters of two axes, embeddings included", "clip": "none",
                                    "losses": train(model, batches, settings)},
               "gelu_erf": {"logits": exact(batches[0]["inputs"]), "loss": loss_of(exact, batches[0]).item(),
                            "losses": train(exact, batches, settings)}}
    write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/golden/gpt2.json"), golden)


if __name__ == "__main__":
    main()
