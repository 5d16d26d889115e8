#!/usr/bin/env python3
"""Makes tests/golden/attention.json: what PyTorch computes in float64 for attention and its variants.

    pip install torch numpy
    python3 tools/golden_attention.py

Two runs write the same file. "variants" is a list of formulas written out, loops over positions for the recurrent
family, or scaled_dot_product_attention:
  case         which, and what is special about it
  inputs       tensors by name: q (B, H, N, D), k (B, Hkv, M, D), v (B, Hkv, M, Dv) first, then what else is learned
  output       (B, H, N, Dv);   cotangent   dy;   gradients   of sum(output * cotangent), by name of the input
"modules" has calls of torch.nn.MultiheadAttention:
  case, options                 which, and the constructor's arguments besides E and H
  inputs                        query, key, value, and attn_bias or key_padding_bias where the mask is one of floats
  masks                         key_padding_mask and attn_mask, 1 where masked, as {"shape", "values"}
  parameters                    by PyTorch's names
  average, causal               average_attn_weights; whether attn_mask is the causal one
  output, weights, cotangents   weights are absent where they were not asked for
  gradients                     of sum(output * c) + sum(weights * c'), by name of the parameter or input
"""
import math
import os

import torch
import torch.nn.functional as F

from golden_json import normal, write

B, H, N, M, D, DV = 1, 2, 4, 6, 3, 2
variants = []


def append(case, f, inputs):
    """Appends one case. `f` gets the inputs by name."""
    inputs = {name: x.clone().requires_grad_() for name, x in inputs.items()}
    output = f(**inputs)
    cotangent = normal(*output.shape)
    gradients = torch.autograd.grad(output, list(inputs.values()), cotangent, allow_unused=True,
                                    materialize_grads=True)
    variants.append({"case": case, "inputs": inputs, "output": output, "cotangent": cotangent,
                     "gradients": dict(zip(inputs, gradients))})


def variant(case, f, **extra):
    append(case, f, {"q": normal(B, H, N, D), "k": normal(B, H, M, D), "v": normal(B, H, M, DV)} | extra)


def scores(q, k):
    return q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])


def distances(rows, keys):
    """Key minus query, the last query at the last key."""
    return torch.arange(keys)[None, :] - torch.arange(rows)[:, None] - (keys - rows)


def t5_bucket(relative_position, bidirectional, num_buckets, max_distance):
    """T5Attention._relative_position_bucket of Hugging Face's transformers."""
    relative_buckets = 0
    if bidirectional:
        num_buckets //= 2
        relative_buckets += (relative_position > 0).to(torch.long) * num_buckets
        relative_position = torch.abs(relative_position)
    else:
        relative_position = -torch.min(relative_position, torch.zeros_like(relative_position))
    max_exact = num_buckets // 2
    is_small = relative_position < max_exact
    large = max_exact + (torch.log(relative_position.float().clamp(min=1) / max_exact) /
                         math.log(max_distance / max_exact) * (num_buckets - max_exact)).to(torch.long)
    large = torch.min(large, torch.full_like(large, num_buckets - 1))
    return relative_buckets + torch.where(is_small, relative_position, large)


def entmax15(x):
    """Peters 2019, algorithm 2: the threshold from the sorted scores."""
    half = x / 2
    ordered = half.sort(dim=-1, descending=True).values
    count = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    average = ordered.cumsum(-1) / count
    spread = count * ((ordered ** 2).cumsum(-1) / count - average ** 2)
    threshold = average - ((1 - spread) / count).clamp(min=1e-30).sqrt()
    support = (threshold <= ordered).sum(-1, keepdim=True)
    return (half - threshold.gather(-1, support - 1)).clamp(min=0) ** 2


def sparsemax(x):
    """Martins 2016."""
    ordered = x.sort(dim=-1, descending=True).values
    count = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    support = (1 + count * ordered > ordered.cumsum(-1)).sum(-1, keepdim=True)
    threshold = (ordered.cumsum(-1).gather(-1, support - 1) - 1) / support
    return (x - threshold).clamp(min=0)


def stick_breaking(q, k, v):
    x, keep = scores(q, k), distances(N, M) < 0
    outputs = []
    for i in range(N):
        left, row = 1, torch.zeros_like(x[..., i, 0])[..., None] * v[..., 0, :]
        for j in reversed(range(M)):
            if keep[i, j]:
                part = torch.sigmoid(x[..., i, j])
                row = row + (left * part)[..., None] * v[..., j, :]
                left = left * (1 - part)
        outputs.append(row)
    return torch.stack(outputs, -2)


def shaw(q, k, v, key_table, value_table):
    clipped = distances(N, M).clamp(-2, 2) + 2
    x = (q @ k.transpose(-1, -2) + torch.einsum("bhnd,nmd->bhnm", q, key_table[clipped])) / math.sqrt(D)
    weights = x.softmax(-1)
    return weights @ v + torch.einsum("bhnm,nmd->bhnd", weights, value_table[clipped])


def transformer_xl(q, k, v, u, w, r):
    index = torch.arange(M)[None, :] - torch.arange(N)[:, None] + N - 1
    x = torch.einsum("bhnd,bhmd->bhnm", q + u[:, None], k) + torch.einsum("bhnd,hnmd->bhnm", q + w[:, None], r[:, index])
    return (x / math.sqrt(D)).softmax(-1) @ v


def with_sink(q, k, v, sink):
    column = sink.reshape(1, H, 1, 1).expand(B, H, N, 1)
    return torch.cat([scores(q, k), column], -1).softmax(-1)[..., :-1] @ v


def top_k(q, k, v):
    x = scores(q, k)
    return x.masked_fill(x < x.topk(3).values[..., -1:], -math.inf).softmax(-1) @ v


def inverted(q, k, v):
    weights = scores(q, k).softmax(-2)
    return (weights / weights.sum(-1, keepdim=True)) @ v


def signed(q, k, v):
    x = scores(q, k)
    return (x.abs().softmax(-1) * x.sign()) @ v


def entmax(x, alpha):
    """The threshold by bisection, and one step of Newton's method, which gives it its derivative."""
    x = (alpha - 1) * x
    power = 1 / (alpha - 1)
    high = x.detach().max(-1, keepdim=True).values
    low = high - 1
    for _ in range(100):
        middle = (low + high) / 2
        enough = ((x.detach() - middle).clamp(min=0) ** power).sum(-1, keepdim=True) >= 1
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    above = (x - low).clamp(min=0)
    slope = (power * above ** (power - 1)).sum(-1, keepdim=True).detach()
    threshold = low + ((above ** power).sum(-1, keepdim=True) - 1) / slope
    return (x - threshold).clamp(min=0) ** power


def hard(q, k, v):
    """The largest score's value; the gradient is the softmax's."""
    soft = scores(q, k).softmax(-1)
    one = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
    return (one + soft - soft.detach()) @ v


def causal_softmax(x):
    return x.masked_fill(distances(*x.shape[-2:]) > 0, -math.inf).softmax(-1)


def forget(q, k, v, log_gates):
    total = log_gates.cumsum(-1)
    return causal_softmax(scores(q, k) + total[..., -q.shape[2]:, None] - total[..., None, :]) @ v


def contextual(q, k, v, positions):
    """Golovneva 2024: a key's position is the sum of the gates from the query back to it."""
    x, z = scores(q, k), q @ positions.T
    gates = torch.sigmoid(x) * (distances(*x.shape[-2:]) <= 0)
    place = gates.flip(-1).cumsum(-1).flip(-1).clamp(max=positions.shape[0] - 1)
    below, above = place.floor().long(), place.ceil().long()
    part = place - below
    return causal_softmax(x + z.gather(-1, above) * part + z.gather(-1, below) * (1 - part)) @ v


def squared_distances(q, k):
    return ((q[..., :, None, :] - k[..., None, :, :]) ** 2).sum(-1)


def normalized(weights):
    """0 in a row without weights."""
    total = weights.sum(-1, keepdim=True)
    return weights / torch.where(total == 0, 1, total)


def recurrence(q, k, v, log_decay=None, beta=None):
    """S = a S + k v', or with the delta rule a S + b k (v - a S' k)'; the result is S' q. One position at a time."""
    state, outputs = torch.zeros(B, H, k.shape[-1], v.shape[-1]), []
    for t in range(q.shape[2]):
        key, value = k[:, :, t], v[:, :, t]
        if log_decay is not None:
            state = state * log_decay.expand(B, H, q.shape[2])[:, :, t, None, None].exp()
        if beta is not None:
            value = beta[:, :, t, None] * (value - torch.einsum("bhde,bhd->bhe", state, key))
        state = state + key[..., :, None] * value[..., None, :]
        outputs.append(torch.einsum("bhde,bhd->bhe", state, q[:, :, t]))
    return torch.stack(outputs, 2)


def weighted_mean(q, k, v):
    """Linear attention with weights that sum to 1."""
    return recurrence(q, k, v) / recurrence(q, k, torch.ones_like(v[..., :1]))


def performer(x, q, k, v, proj, features):
    """FAVOR+ with given features (m, D) and projections (C, C)."""
    def heads(weight):
        return (x @ weight.T).reshape(1, x.shape[1], H, -1).transpose(1, 2)

    def positive(y):
        y = y / y.shape[-1] ** 0.25
        return (y @ features.T - (y ** 2).sum(-1, keepdim=True) / 2).exp()
    y = weighted_mean(positive(heads(q)), positive(heads(k)), heads(v))
    return y.transpose(1, 2).reshape(x.shape) @ proj.T


def make_more_variants():
    rows, keys, width = 3, 5, 2

    def small(case, f, **extra):
        append(case, f, {"q": normal(B, H, rows, width), "k": normal(B, H, keys, width),
                         "v": normal(B, H, keys, width)} | extra)

    def masked(keep):
        return lambda q, k, v: scores(q, k).masked_fill(~keep, -math.inf).softmax(-1) @ v
    d = distances(rows, keys)
    small("window of 2, causal", masked((d <= 0) & (d >= -2)))
    documents = torch.tensor([0, 0, 1, 1, 2])
    small("documents 0 0 1 1 2", masked(documents[None, :] == documents[-rows:, None]))
    small("padding 0 1 0 0 1", masked(torch.tensor([[True, False, True, True, False]])))
    small("temperature", lambda q, k, v, factor: (scores(q, k) * factor).softmax(-1) @ v, factor=normal(H, 1, 1))
    small("distance table", lambda q, k, v, table: (
        scores(q, k) + table[:, torch.arange(keys)[None, :] - torch.arange(rows)[:, None] + rows - 1]).softmax(-1) @ v,
          table=normal(H, rows + keys - 1))
    small("forget", forget, log_gates=-normal(B, H, keys).abs())
    small("contextual positions", contextual, positions=normal(3, width))
    small("plus one", lambda q, k, v: torch.cat([scores(q, k), torch.zeros(B, H, rows, 1)], -1).softmax(-1)[..., :-1]
          @ v)
    small("relu 2", lambda q, k, v: scores(q, k).clamp(min=0) ** 2 @ v)
    small("entmax 1.3", lambda q, k, v: entmax(2 * scores(q, k), 1.3) @ v)
    small("hard", hard)
    bandwidth = torch.tensor([1.9, 2.6])
    small("laplace", lambda q, k, v, bandwidth: (
        -squared_distances(q, k).sqrt() / bandwidth[:, None, None]).softmax(-1) @ v, bandwidth=bandwidth)
    small("epanechnikov", lambda q, k, v, bandwidth: normalized(
        (1 - squared_distances(q, k) / bandwidth[:, None, None] ** 2).clamp(min=0)) @ v, bandwidth=bandwidth)
    small("boxcar", lambda q, k, v, bandwidth: normalized(
        (squared_distances(q, k) < bandwidth[:, None, None] ** 2).to(v.dtype)) @ v, bandwidth=bandwidth)

    def recurrent(case, f, **extra):
        append(case, f, {name: normal(B, H, 5, width) for name in "qkv"} | extra)
    recurrent("linear", recurrence)
    recurrent("linear, normalized", lambda q, k, v: weighted_mean(q.exp(), k.exp(), v))
    recurrent("retention", recurrence, log_decay=-normal(H, 1).abs())
    recurrent("gated linear", recurrence, log_decay=-normal(B, H, 5).abs())
    recurrent("delta", recurrence, beta=normal(B, H, 5).abs())
    recurrent("gated delta", recurrence, log_decay=-normal(B, H, 5).abs(), beta=normal(B, H, 5).abs())
    append("performer", performer, {"x": normal(1, 5, 4)} | {name: normal(4, 4) for name in ("q", "k", "v", "proj")} |
           {"features": normal(3, 2)})
    del variants[-1]["gradients"]["features"]  # which are drawn, not learned


def make_variants():
    sdpa = F.scaled_dot_product_attention
    variant("sdpa", lambda q, k, v: sdpa(q, k, v))
    variant("sdpa, causal at the top left", lambda q, k, v: sdpa(q, k, v, is_causal=True))
    variant("sdpa, 2 heads of keys and values for 4", lambda q, k, v: sdpa(q, k, v, enable_gqa=True),
            q=normal(B, 4, N, D))
    variant("sdpa, bias", lambda q, k, v, bias: sdpa(q, k, v, attn_mask=bias), bias=normal(H, N, M))
    variant("softcap", lambda q, k, v, cap: (cap * torch.tanh(scores(q, k) / cap)).softmax(-1) @ v,
            cap=torch.tensor(0.7))
    variant("alibi", lambda q, k, v, slopes: (scores(q, k) - slopes[:, None, None] * distances(N, M).abs()).softmax(-1)
            @ v, slopes=torch.tensor([0.5, 0.3]))
    variant("sink", with_sink, sink=normal(H))
    variant("sigmoid", lambda q, k, v, bias: torch.sigmoid(scores(q, k) + bias) @ v, bias=normal(H, 1, 1))
    variant("gaussian", lambda q, k, v, bandwidth: (-((q[..., :, None, :] - k[..., None, :, :]) ** 2).sum(-1) /
                                                   (2 * bandwidth[:, None, None] ** 2)).softmax(-1) @ v,
            bandwidth=torch.tensor([0.9, 1.6]))
    for bidirectional in (True, False):
        def t5(q, k, v, table):
            x = q @ k.transpose(-1, -2) + table[:, t5_bucket(distances(N, M), bidirectional, 8, 10)]
            return x.masked_fill((distances(N, M) > 0) & (not bidirectional), -math.inf).softmax(-1) @ v
        variant("t5" if bidirectional else "t5, causal", t5, table=normal(H, 8))
    variant("shaw", shaw, key_table=normal(5, D), value_table=normal(5, DV))
    variant("transformer-xl", transformer_xl, u=normal(H, D), w=normal(H, D), r=normal(H, N + M - 1, D))
    variant("talking heads", lambda q, k, v, before, after: torch.einsum(
        "hg,bgnm->bhnm", after, torch.einsum("hg,bgnm->bhnm", before, scores(q, k)).softmax(-1)) @ v,
            before=normal(H, H), after=normal(H, H))
    variant("entmax 1.5", lambda q, k, v: entmax15(2 * scores(q, k)) @ v)
    variant("sparsemax", lambda q, k, v: sparsemax(scores(q, k)) @ v)
    variant("stick-breaking", stick_breaking)
    variant("top 3", top_k)
    variant("inverted", inverted)
    variant("signed", signed)
    # positions far apart, where the buckets of T5 are logarithmic
    far = torch.arange(-150, 151)
    return {"distances": far.tolist(), "buckets": t5_bucket(far, True, 32, 128).tolist(),
            "causal_buckets": t5_bucket(far, False, 32, 128).tolist()}


E, B2, N2, M2 = 6, 2, 3, 4


def module(case, average=True, need_weights=True, causal=False, bias=None, padding=None, padding_bias=None,
           mask=None, self_attention=False, batched=True, linear_bias=True, **options):
    options["bias"] = linear_bias
    options.setdefault("batch_first", True)
    attend = torch.nn.MultiheadAttention(E, H, **options)
    for p in attend.parameters():
        p.data = normal(*p.shape, deviation=0.5)
    keys = N2 if self_attention else M2
    inputs = {"query": normal(B2, N2, E), "key": normal(B2, keys, options.get("kdim", E)),
              "value": normal(B2, keys, options.get("vdim", E))}
    if not batched:
        inputs = {name: x[0] for name, x in inputs.items()}
    elif not options["batch_first"]:
        inputs = {name: x.transpose(0, 1).contiguous() for name, x in inputs.items()}
    if bias is not None:
        inputs["attn_bias"] = bias
    if padding_bias is not None:
        inputs["key_padding_bias"] = padding_bias
    inputs = {name: x.clone().requires_grad_() for name, x in inputs.items()}
    attn_mask = torch.ones(N2, keys, dtype=torch.bool).triu(1) if causal else mask
    output, weights = attend(
        inputs["query"], inputs["key"], inputs["value"],
        key_padding_mask=inputs.get("key_padding_bias", padding), need_weights=need_weights,
        attn_mask=inputs.get("attn_bias", attn_mask), average_attn_weights=average, is_causal=causal)
    cotangents = {"output": normal(*output.shape)}
    total = (output * cotangents["output"]).sum()
    if weights is not None:
        cotangents["weights"] = normal(*weights.shape)
        total = total + (weights * cotangents["weights"]).sum()
    parameters = dict(attend.named_parameters())
    leaves = parameters | inputs
    gradients = torch.autograd.grad(total, list(leaves.values()))
    result = {"case": case, "options": options, "inputs": inputs, "parameters": parameters, "average": average,
              "causal": causal, "masks": {}, "output": output, "cotangents": cotangents,
              "gradients": dict(zip(leaves, gradients))}
    if weights is not None:
        result["weights"] = weights
    if padding is not None:
        result["masks"]["key_padding_mask"] = padding.to(torch.int64)
    if mask is not None:
        result["masks"]["attn_mask"] = mask.to(torch.int64)
    return result


def make_modules():
    padding = torch.tensor([[0, 0, 0, 1], [0, 1, 0, 0]], dtype=torch.bool)
    each = torch.zeros(B2 * H, N2, M2, dtype=torch.bool)
    for head in range(B2 * H):
        for row in range(N2):
            each[head, row, (head + 2 * row) % M2] = True
    rows = torch.tensor([[0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    return [
        module("default"),
        module("weights of each head", average=False),
        module("without weights, causal", need_weights=False, causal=True, self_attention=True),
        module("kdim and vdim", kdim=5, vdim=4, average=False),
        module("not batch first, no bias", linear_bias=False, batch_first=False),
        module("a learned key", add_bias_kv=True, average=False),
        module("a key of zeros", add_zero_attn=True),
        module("both, and masks", add_bias_kv=True, add_zero_attn=True, average=False, padding=padding, mask=rows),
        module("both, causal", add_bias_kv=True, add_zero_attn=True, causal=True, self_attention=True),
        module("a mask for each head", mask=each, average=False),
        module("padding", padding=padding),
        module("a mask of floats", bias=normal(N2, M2)),
        module("a mask of floats for each head, both", bias=normal(B2 * H, N2, M2), add_bias_kv=True,
               add_zero_attn=True),
        module("one sequence", batched=False),
        module("padding of floats", padding_bias=normal(B2, M2)),
        module("both masks of floats, both added", padding_bias=normal(B2, M2), bias=normal(N2, M2), add_bias_kv=True,
               add_zero_attn=True),
    ]


def main():
    torch.manual_seed(3)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    buckets = make_variants()
    modules = make_modules()
    make_more_variants()
    write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/golden/attention.json"), {
        "about": f"made by tools/golden_attention.py with PyTorch {torch.__version__.split('+')[0]} in float64",
        "variants": variants, "t5": buckets, "modules": modules})


if __name__ == "__main__":
    main()
