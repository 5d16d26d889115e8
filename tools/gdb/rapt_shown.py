"""What is shown of rapt's values: tensors, nodes, modules, attention options. Like rapt_memory it knows no debugger."""

import re

from rapt_memory import (
    c_text, elements_of, matrix_text, OURS, pointer_of, Problem, sizes_of, Statistics, text_of,
    tuple_text, uses, view_of)


# Tensors.


def tensor_line(v):
    """Shape, statistics: for lists of tensors."""
    view = view_of(v)
    return "Tensor()" if view is None else "Tensor%s %s" % (tuple_text(view.sizes), Statistics(view))


def tensor_text(v, values=True):
    view = view_of(v)
    if view is None:
        return "Tensor(): holds nothing"
    try:
        node = pointer_of(v.field("node"))
        made = "\n  node: " + describe(node.target()) if node.int() else ""
    except Problem as problem:
        made = "\n  node: %s" % problem
    text = "Tensor%s of %s, strides %s%s\n  %s" % (
        tuple_text(view.sizes), "double" if view.code == "d" else "float", tuple_text(view.strides), made,
        Statistics(view))
    return text + ("\n" + matrix_text(view) if values else "")


# The graph.


def module_of(node):
    pointer = pointer_of(node.field("module"))
    return text_of(pointer.target()) if pointer.int() else ""


def describe(node):
    """As Node::describe(): softmax (model.cpp:12, in blocks.3.attention)"""
    if node.type.startswith("rapt::") and node.field("sequence").int() == 0:
        raise Problem("no node: freed?")
    name, module, line = c_text(node.field("name_")), module_of(node), node.field("where").field("line").int()
    if node.field("leaf_").int():
        return (module + "." if module else "") + name
    where = "%s:%d" % (c_text(node.field("where").field("file")), line)
    return "%s (%s%s)" % (name, where, ", in " + module if module else "")


def gradient_text(node):
    view = view_of(node.field("gradient"))
    if view is not None:
        return "%s" % Statistics(view)
    if node.field("leaf_").int():
        return "none yet"
    if node.field("released").int():
        return "freed after backward; keep it with retain_gradient"
    return "not kept; retain_gradient(y) before the backward keeps it" if not node.field("retain").int() else "none yet"


def value_text(v):
    """A member of an operation, in a few words."""
    kind = v.type
    if re.match(OURS + r"Saved$", kind):
        return tensor_line(v.field("tensor_"))
    if re.match(OURS + r"Tensor$", kind):
        return tensor_line(v)
    if re.match(OURS + r"Shape$", kind):
        return tuple_text(sizes_of(v))
    if re.match(OURS + r"AttentionOptions$", kind):
        return options_text(v)
    if re.match(OURS + r"Tokens$", kind):
        return "Tokens" + tuple_text(sizes_of(v.field("shape")))
    if kind.startswith("std::vector<"):
        return "[" + ", ".join(value_text(e) for e in elements_of(v)) + "]"
    if kind.startswith(("std::__cxx11::basic_string<", "std::string")):
        return '"%s"' % text_of(v)
    if kind in ("float", "double"):
        return "%.6g" % v.float()
    if kind == "bool":
        return "true" if v.int() else "false"
    if re.match(r"(unsigned )?(int|long|short|char)( unsigned)?( int)?$|u?int\d+_t$", kind):
        return str(v.int())
    if kind.startswith("std::shared_ptr<"):
        pointer = pointer_of(v)
        return value_text(pointer.target()) if pointer.int() else "null"
    if kind.startswith("rapt::") and not v.bases():
        return "{%s}" % ", ".join("%s %s" % (n, value_text(m)) for n, m in v.fields())
    return "<%s>" % kind


def node_text(node):
    node = node.dynamic()
    text = "%s\n  sequence %d, result %s" % (describe(node), node.field("sequence").int(),
                                             tuple_text(sizes_of(node.field("shape"))))
    function = c_text(node.field("where").field("function"))
    if function:
        text += ", made in %s" % function
    for i, pointer in enumerate(elements_of(node.field("inputs"))):
        made = describe(pointer_of(pointer).target()) if pointer_of(pointer).int() else "wants no gradient"
        text += "\n  input %d: %s" % (i, made)
    text += "\n  gradient: " + gradient_text(node)
    if view_of(node.field("incoming")) is not None:
        text += "\n  incoming: " + tensor_line(node.field("incoming"))
    hooks = node.field("hooks").field("_M_impl")
    if hooks.field("_M_start").int() != hooks.field("_M_finish").int():
        text += "\n  has hooks"
    if node.field("released").int():
        return text + "\n  what it saved was freed after backward"
    if "::OpNode<" in node.type:
        for name, value in node.field("op").fields():
            try:
                text += "\n  %s: %s" % (name, value_text(value))
            except Problem as problem:
                text += "\n  %s: %s" % (name, problem)
    kept = elements_of(node.field("kept"))
    for i, value in enumerate(kept):
        text += "\n  %s: %s" % ("kept result" if i + 1 == len(kept) else "kept input %d" % i, tensor_line(value))
    return text


# Modules.


def module_text(v):
    parameters = elements_of(v.field("parameters_"))
    parts = elements_of(v.field("parts_"))
    path = text_of(pointer_of(parts[0]).target().field("path")) if parts else ""
    lines, total = [], 0
    for p in parameters:
        view = view_of(p.field("tensor"))
        total += view.count() if view else 0
        lines.append("\n  %s %s" % (text_of(p.field("name")), tuple_text(view.sizes) if view else "()"))
    if len(lines) > 40:
        lines[20:-20] = ["\n  … %d more" % (len(lines) - 40)]
    kind = re.sub("^" + OURS, "", v.type)
    return "%s%s: %d numbers in %d parameters%s" % (kind, ' "%s"' % path if path else "", total, len(parameters),
                                                   "".join(lines))


# Attention options.


def class_name(kind):
    """The last part of a class's name, outside of <> and ()."""
    depth, start = 0, 0
    for i, c in enumerate(kind):
        depth += (c in "<({") - (c in ">)}")
        if depth == 0 and kind.startswith("::", i):
            start = i + 2
    return kind[start:].split("<")[0]


def rule_text(pointer):
    """A rule of a mask, score or normaliser by its class: And(a, b), Window(left 256, right 256)."""
    rule = pointer.target().dynamic()
    name = class_name(getattr(rule, "named", rule.type))  # named: where the debugger knows no more than the name
    members = dict(rule.fields())
    for wrapped in [n for n in ("rule",) if n in members]:
        inner = rule_text(pointer_of(members[wrapped]))
        return inner if name in ("Checked", "AtRule") else "%s(%s)" % (name.lower(), inner)
    parts = [rule_text(pointer_of(m.field("rule_"))) for m in members.values() if m.type.endswith("::Mask")]
    if parts:
        sign = {"And": " & ", "Or": " | "}.get(name)
        if sign:
            return "(" + sign.join(parts) + ")"
        return "!" + parts[0] if name == "Not" else "%s(%s)" % (name.lower(), ", ".join(parts))
    if "name_" in members:
        name = text_of(members.pop("name_"))
    shown = ["%s %s" % (n, value_text(m)) for n, m in members.items() if n not in ("f", "tables") and not value_text(m).startswith("<")]
    try:
        shown += ["Tensor" + tuple_text(sizes_of(t.field("shape"))) for t in elements_of(rule.field("tables"))]
    except Problem:
        pass
    return name[0].lower() + name[1:] + ("(%s)" % ", ".join(shown) if shown else "")


KINDS = ["softmax", "signed softmax", "elementwise", "ratio", "rows", "inverted softmax"]


def options_text(v):
    mask = pointer_of(v.field("mask").field("rule_"))
    text = "mask: " + (rule_text(mask) if mask.int() else "everything")
    rules = elements_of(v.field("score").field("rules_"))
    text += "; score: " + (" | ".join(rule_text(pointer_of(r)) for r in rules) if rules else "as it is")
    normalizer = v.field("normalizer")
    kind = normalizer.field("kind").int()
    name = KINDS[kind] if 0 <= kind < len(KINDS) else "kind %d" % kind
    for held in ("weight", "rows"):
        pointer = pointer_of(normalizer.field(held))
        if pointer.int():
            name = rule_text(pointer) + (" / sum" if name == "ratio" else "")
    sink = view_of(normalizer.field("sink"))
    text += "; normalizer: " + name + (" with sink %s" % tuple_text(sink.sizes) if sink else "")
    scale, dropout = v.field("scale").float(), v.field("dropout").float()
    text += "; scale: " + ("%.6g" % scale if scale else "1/√D")
    if dropout:
        text += "; dropout: %g" % dropout
    for name in ("relative_queries", "relative_keys", "relative_values"):
        view = view_of(v.field(name))
        if view:
            text += "; %s: Tensor%s" % (name, tuple_text(view.sizes))
    return text


def handle_text(v):
    weak = v.field("node")
    count = weak.field("_M_refcount").field("_M_pi")
    if uses(count) == 0:
        return "HookHandle of an expired node"
    return "HookHandle %d of %s" % (v.field("id").int(), describe(weak.field("_M_ptr").target()))


# What is shown how: by the name of the type, or of a base.
SHAPE, TENSOR, NODE, OPTIONS, MODULE, HANDLE = "Shape", "Tensor", "Node", "AttentionOptions", "Module", "HookHandle"
TEXTS = {
    SHAPE: lambda v: tuple_text(sizes_of(v)),
    TENSOR: tensor_text,
    NODE: node_text,
    OPTIONS: options_text,
    MODULE: module_text,
    HANDLE: handle_text,
}


def kind_of(name, bases):
    """SHAPE, TENSOR, … for a class of this name with these bases, or None."""
    for one in [name] + list(bases):
        match = re.match(OURS + r"(\w+)$", one)
        if match and match.group(1) in TEXTS:
            return match.group(1)
    return None


def show(v, kind, brief=False):
    try:
        if brief and kind == TENSOR:
            view = view_of(v)
            return "Tensor" + tuple_text(view.sizes) if view else "Tensor()"
        if brief and kind == NODE:
            return describe(v)
        return TEXTS[kind](v) if not brief or kind == SHAPE else kind
    except Problem as problem:
        return "%s: %s" % (kind, problem)
