#!/usr/bin/env python3
"""Makes tests/golden/ops.json: what PyTorch computes in float64 for operations that are easy to get slightly wrong.

    pip install torch numpy
    python3 tools/golden_ops.py

Two runs write the same file. "operations" is a list of cases:
  operation, case   which, and what is special about it;   options   its settings
  inputs            tensors by name; targets are lists of whole numbers
  output            the result;   cotangent   dy, zero where the output is -inf
  gradients         of sum(output * cotangent), by name of the input; absent where PyTorch gives NaN
"optimizers" has trajectories of one small vector: start, the eight gradients it is given whatever its value (the same
in all cases), and the value after each step. "schedules" has learning rates by step, and "clip" one clipping by global
norm.
"""
import os

import torch
import torch.nn.functional as F

from golden_json import normal, write

INF = float("inf")
operations = []


def case(operation, special, f, inputs, options=None, constants=None):
    """Appends one case: `inputs` get gradients, `constants` (masks, targets) don't."""
    inputs = {name: x.clone().requires_grad_() for name, x in inputs.items()}
    output = f(*inputs.values())
    cotangent = torch.where(output.isfinite(), normal(*output.shape), 0)
    gradients = torch.autograd.grad(output, list(inputs.values()), cotangent)
    result = {"operation": operation, "case": special, "options": options or {}, "inputs": inputs | (constants or {}),
              "output": output, "cotangent": cotangent}
    if all(g.isfinite().all() for g in gradients):
        result["gradients"] = dict(zip(inputs, gradients))
    operations.append(result)


def activations():
    x = torch.cat([normal(9), torch.tensor([0.0, -0.0001, 6.5, -6.5, 30.0, -30.0])])  # the tails matter as well
    for name, f in {
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "gelu_erf": F.gelu, "silu": F.silu,
        "sigmoid": torch.sigmoid, "tanh": torch.tanh, "softplus": F.softplus, "elu": F.elu, "mish": F.mish,
        "log_sigmoid": F.logsigmoid,
        "erf": torch.erf, "relu_squared": lambda x: F.relu(x) ** 2,
    }.items():
        case(name, "with both tails", f, {"x": x})


def norms():
    x, weight, bias = normal(3, 7) + 0.5, normal(7) + 1, normal(7)
    for epsilon in (1e-5, 0.5):  # the second shows whether epsilon is inside the root
        options = {"epsilon": epsilon}
        case("layer_norm", f"epsilon {epsilon}", lambda x, w, b: F.layer_norm(x, (7,), w, b, epsilon),
             {"x": x, "weight": weight, "bias": bias}, options)
        case("rms_norm", f"epsilon {epsilon}", lambda x, w: F.rms_norm(x, (7,), w, epsilon),
             {"x": x, "weight": weight}, options)
    case("layer_norm", "large mean", lambda x, w, b: F.layer_norm(x, (7,), w, b, 1e-5),
         {"x": x + 1000, "weight": weight, "bias": bias}, {"epsilon": 1e-5})
    case("layer_norm", "a constant row", lambda x, w, b: F.layer_norm(x, (7,), w, b, 1e-5),
         {"x": torch.cat([x[:1], torch.full((1, 7), 2.0)]), "weight": weight, "bias": bias}, {"epsilon": 1e-5})
    case("group_norm", "2 groups of 3 channels", lambda x, w, b: F.group_norm(x, 2, w, b, 1e-5),
         {"x": normal(2, 6, 4), "weight": weight[:6], "bias": bias[:6]}, {"epsilon": 1e-5, "groups": 2})


def losses():
    logits, targets, ignored = normal(5, 7, deviation=2), [3, 0, 6, 6, 1], [3, -100, 6, -100, 1]
    for special, t, options in [
        ("plain", targets, {}), ("ignore index", ignored, {"ignore_index": -100}),
        ("label smoothing", targets, {"label_smoothing": 0.1}),
        ("ignore index and label smoothing", ignored, {"ignore_index": -100, "label_smoothing": 0.1}),
        ("sum", ignored, {"ignore_index": -100, "reduction": "sum"}),
        ("each", ignored, {"ignore_index": -100, "reduction": "none"}),
    ]:
        case("cross_entropy", special, lambda x: F.cross_entropy(x, torch.tensor(t), **options), {"logits": logits},
             options, {"targets": t})
    case("cross_entropy", "logits of 1000", lambda x: F.cross_entropy(x, torch.tensor(targets)),
         {"logits": logits * 1000}, {}, {"targets": targets})
    a, b = normal(3, 4), normal(3, 4, deviation=2)
    case("mse_loss", "mean", F.mse_loss, {"input": a, "target": b})
    case("huber_loss", "delta 0.7", lambda x, y: F.huber_loss(x, y, delta=0.7), {"input": a, "target": b},
         {"delta": 0.7})
    case("binary_cross_entropy_with_logits", "soft targets, large logits",
         lambda x: F.binary_cross_entropy_with_logits(x, b.sigmoid().round(decimals=2)), {"logits": a * 20}, {},
         {"target": b.sigmoid().round(decimals=2)})
    log_p, log_q = a.log_softmax(-1), b.log_softmax(-1)
    case("kl_div", "sum p (log p - log q) / rows, both logarithms",
         lambda q, p: F.kl_div(q, p, reduction="batchmean", log_target=True),
         {"log_q": log_q.round(decimals=4), "log_p": log_p.round(decimals=4)})
    case("cosine_similarity", "along the last axis", lambda a, b: F.cosine_similarity(a, b, -1), {"a": a, "b": b})


def reductions():
    x = normal(3, 5)
    hole = x.clone()
    hole[0, 1] = -INF
    for name, f in {"softmax": torch.softmax, "log_softmax": torch.log_softmax, "logsumexp": torch.logsumexp}.items():
        for axis in (0, 1):
            case(name, f"axis {axis}", lambda x: f(x, axis), {"x": x}, {"axis": axis})
        case(name, "numbers near 1000", lambda x: f(x, 1), {"x": x + 1000}, {"axis": 1})
        case(name, "one -inf", lambda x: f(x, 1), {"x": hole}, {"axis": 1})
    empty = x.clone()
    empty[1] = -INF
    case("logsumexp", "a row of -inf", lambda x: torch.logsumexp(x, 1), {"x": empty}, {"axis": 1})
    for axis in (0, 1):
        case("cumsum", f"axis {axis}", lambda x: torch.cumsum(x, axis), {"x": x}, {"axis": axis})
        case("var", f"axis {axis}, divided by n", lambda x: x.var(axis, correction=0), {"x": x}, {"axis": axis})
        case("var", f"axis {axis}, divided by n - 1", lambda x: x.var(axis), {"x": x}, {"axis": axis})
    zero = x.clone()
    zero[0, 0] = zero[1, 2] = zero[1, 3] = 0
    case("prod", "rows with no, one and two zeros", lambda x: x.prod(1), {"x": zero}, {"axis": 1})
    case("cumprod", "rows with no, one and two zeros", lambda x: x.cumprod(1), {"x": zero}, {"axis": 1})
    ties = torch.tensor([[1.0, 3.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    case("amax", "ties share the gradient", lambda x: x.amax(1), {"x": ties}, {"axis": 1})
    case("norm", "length of each row", lambda x: x.norm(dim=1), {"x": x}, {"axis": 1})
    case("minimum", "ties halve the gradient", torch.minimum, {"a": ties[0], "b": ties[0].flip(0)})


def attention():
    q, k, v = normal(1, 4, 5, 6), normal(1, 4, 7, 6), normal(1, 4, 7, 3)
    sdpa = F.scaled_dot_product_attention
    named = {"q": q, "k": k, "v": v}
    case("attention", "no mask, 7 keys, values of another width", sdpa, named)
    case("attention", "scale 0.3", lambda q, k, v: sdpa(q, k, v, scale=0.3), named, {"scale": 0.3})
    case("attention", "causal", lambda q, k, v: sdpa(q, k, v, is_causal=True),
         {"q": q, "k": k[:, :, :5].contiguous(), "v": v[:, :, :5].contiguous()}, {"causal": True})
    end = torch.ones(5, 7, dtype=torch.bool).tril(2)  # the last query sees the last key
    case("attention", "causal, the last query at the last key", lambda q, k, v: sdpa(q, k, v, attn_mask=end), named,
         {"mask": "key <= query + 2"})
    window = end & torch.ones(5, 7, dtype=torch.bool).triu(0)
    case("attention", "causal window of 3", lambda q, k, v: sdpa(q, k, v, attn_mask=window), named,
         {"mask": "query <= key <= query + 2"})
    case("attention", "2 heads of keys and values for 4 of queries", lambda q, k, v: sdpa(q, k, v, enable_gqa=True),
         {"q": q, "k": k[:, :2].contiguous(), "v": v[:, :2].contiguous()})
    case("attention", "scores plus a bias (H, Nq, Nk)", lambda q, k, v, bias: sdpa(q, k, v, attn_mask=bias),
         named | {"bias": normal(4, 5, 7)})


def optimizers():
    start, gradients = normal(4), normal(8, 4)
    gradients[2, 1] = gradients[3, 1] = 0
    cases = [
        ("AdamW", {"lr": 0.1, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}),
        ("AdamW", {"lr": 0.1, "betas": (0.9, 0.999), "eps": 0.3, "weight_decay": 0}),  # where epsilon stands
        ("AdamW", {"lr": 0.1, "betas": (0.9, 0.5), "eps": 1e-8, "weight_decay": 0.1, "amsgrad": True}),
        ("Adam", {"lr": 0.1, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}),  # the decay joins the gradient
        ("SGD", {"lr": 0.1}),
        ("SGD", {"lr": 0.1, "weight_decay": 0.1}),
        ("SGD", {"lr": 0.1, "momentum": 0.9}),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        ("Adagrad", {"lr": 0.1, "eps": 1e-10}),
        ("Adadelta", {"lr": 1.0, "rho": 0.9, "eps": 1e-6}),
        ("Adamax", {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8}),
        ("NAdam", {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "momentum_decay": 4e-3}),
        ("RAdam", {"lr": 0.1, "betas": (0.9, 0.95), "eps": 1e-8}),  # rectified from the sixth step on
        ("RMSprop", {"lr": 0.1, "alpha": 0.9, "eps": 1e-8}),
        ("RMSprop", {"lr": 0.1, "alpha": 0.9, "eps": 1e-8, "centered": True, "momentum": 0.9}),
    ]
    trajectories = []
    for name, options in cases:
        p = torch.nn.Parameter(start.clone())
        optimizer = getattr(torch.optim, name)([p], **options)
        values = []
        for g in gradients:
            p.grad = g.clone()
            optimizer.step()
            values.append(p.detach().clone())
        trajectories.append({"optimizer": name, "options": options, "values": torch.stack(values)})
    return {"start": start, "gradients": gradients, "cases": trajectories}


def schedules():
    def rates(make, steps):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        schedule = make(optimizer)
        result = []
        for _ in range(steps):
            result.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return result

    s = torch.optim.lr_scheduler
    return [
        {"schedule": "cosine", "options": {"peak": 0.5, "steps": 10, "floor": 0.05},
         "rates": rates(lambda o: s.CosineAnnealingLR(o, 10, 0.05), 11)},
        {"schedule": "linear", "options": {"first": 0.5, "last": 0.05, "steps": 10},
         "rates": rates(lambda o: s.LinearLR(o, 1.0, 0.1, 10), 13)},
        {"schedule": "step", "options": {"first": 0.5, "factor": 0.1, "every": 4},
         "rates": rates(lambda o: s.StepLR(o, 4, 0.1), 13)},
        {"schedule": "exponential", "options": {"first": 0.5, "factor": 0.9},
         "rates": rates(lambda o: s.ExponentialLR(o, 0.9), 13)},
    ]


def clip():
    tensors = [normal(3), normal(2, 2)]
    parameters = [torch.nn.Parameter(torch.zeros_like(t)) for t in tensors]
    for p, t in zip(parameters, tensors):
        p.grad = t.clone()
    norm = torch.nn.utils.clip_grad_norm_(parameters, 0.7)
    return {"gradients": tensors, "largest": 0.7, "norm": norm.item(), "clipped": [p.grad for p in parameters]}


def main():
    torch.manual_seed(2)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    for family in (activations, norms, losses, reductions, attention):
        family()
    write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/golden/ops.json"), {
        "about": f"made by tools/golden_ops.py with PyTorch {torch.__version__.split('+')[0]} in float64",
        "operations": operations, "optimizers": optimizers(), "schedules": schedules(), "clip": clip()})


if __name__ == "__main__":
    main()
