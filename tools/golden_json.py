"""Writes golden files: JSON that a person can read and a diff can show, one row of a tensor per line.

A tensor is {"shape": [...], "values": [...]}, values in row-major order with 12 significant digits, enough for the
checks in double. Numbers that JSON can't hold are the texts "inf", "-inf" and "nan". Magnitudes below 1e-14 are written
as 0: they are rounding noise of a zero, and would differ from one machine to the next.
"""
import math

import torch


def number(x):
    if isinstance(x, (bool, int)):
        return str(x).lower()
    if not math.isfinite(x):
        return f'"{x}"'
    return "0" if abs(x) < 1e-14 else f"{x:.12g}"


def tensor(t, indent):
    t = t.detach()
    width = max(1, t.shape[-1] if t.dim() else 1)
    flat = [number(x) for x in t.reshape(-1).tolist()]
    rows = [", ".join(flat[i:i + width]) for i in range(0, len(flat), width)]
    pad = "\n" + "  " * (indent + 1)
    return f'{{"shape": {list(t.shape)}, "values": [{pad}' + f",{pad}".join(rows) + "]}"


def text(value, indent=0):
    """JSON of nested dicts and lists of numbers, strings and tensors; lists without tensors or dicts on one line."""
    pad, end = "\n" + "  " * (indent + 1), "\n" + "  " * indent
    if isinstance(value, torch.Tensor):
        return tensor(value, indent)
    if isinstance(value, dict):
        items = [f'"{k}": {text(v, indent + 1)}' for k, v in value.items()]
        return "{" + pad + f",{pad}".join(items) + end + "}"
    if isinstance(value, (list, tuple)):
        if any(isinstance(v, (dict, torch.Tensor)) for v in value):
            return "[" + pad + f",{pad}".join(text(v, indent + 1) for v in value) + end + "]"
        return "[" + ", ".join(text(v) for v in value) + "]"
    return f'"{value}"' if isinstance(value, str) else number(value)


def write(path, value):
    with open(path, "w", encoding="ascii") as file:
        file.write(text(value) + "\n")


def normal(*shape, deviation=1.0):
    """Normal numbers rounded to four decimals, so that what is written is exactly what was computed with."""
    return (torch.randn(shape, dtype=torch.float64) * deviation * 1e4).round() / 1e4
