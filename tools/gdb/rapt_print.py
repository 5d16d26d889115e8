"""The commands that look: they read memory only (but rapt check), so they work on a core file."""

import math
import os
import re
import shutil
import subprocess

import gdb

import rapt_memory as memory
import rapt_shown as shown
from rapt_gdb import (Problem, Value, command, current, evaluate, function_of, is_kind, namespaces, node_of,
                      node_or_current, process, read, say, set_variables)


@command("rapt", prefix=True)
def rapt(argument):
    """Watching rapt's tensors and gradients.
    Look: rapt print, node, where, grads, graph, check. Go: rapt backward break,
    step, until, watch. `help rapt print` and so on say more; docs/debugging.md shows them at work."""
    if argument:
        raise Problem("there is no rapt %s; `help rapt` lists what there is" % argument)
    gdb.execute("help rapt")


# Tensors.


def split_index(text):
    """"t[3, :]" as ("t", "3, :"); None for the second if the text ends in no bracket."""
    if not text.endswith("]"):
        return text, None
    depth = 0
    for i in range(len(text) - 1, -1, -1):
        depth += (text[i] == "]") - (text[i] == "[")
        if depth == 0:
            return text[:i].strip(), text[i + 1 : -1]
    raise Problem("brackets don't match in %s" % text)


def value_at(text):
    """The value of an expression, std::vectors indexed; and its tensor index that is left over, or None."""
    expression, index = split_index(text)
    if index is None:
        return evaluate(text), None
    v, left = value_at(expression)
    if left is not None:
        raise Problem("two indices in %s: a tensor takes one, as in t[3, :, 5]" % text)
    kind = str(v.type.strip_typedefs().unqualified())
    if kind.startswith("std::shared_ptr<"):
        v = memory.pointer_of(Value(v)).target().v
    if is_kind(v, shown.TENSOR):
        return v, index
    if kind.startswith("std::vector<"):
        elements = memory.elements_of(Value(v))
        i = int(evaluate(index))
        if not 0 <= i < len(elements):
            raise Problem("index %d is out of range: %s has %d elements" % (i, expression, len(elements)))
        return elements[i].v, None
    return evaluate(text), None


def tensor_at(text):
    """A tensor and its index, or None instead of one."""
    v, index = value_at(text)
    if v.type.strip_typedefs().code == gdb.TYPE_CODE_PTR and int(v):
        v = v.dereference()
    if is_kind(v, shown.NODE):
        raise Problem("this is a node, not a tensor: see rapt node")
    if not is_kind(v, shown.TENSOR):
        raise Problem("a value of type %s is no tensor" % v.type)
    return v, index


def viewed(v):
    view = memory.view_of(Value(v))
    if view is None:
        raise Problem("this tensor holds nothing: never filled, or freed after backward; keep a gradient with "
                      "retain_gradient")
    return view


@command("rapt print", completion=gdb.COMPLETE_EXPRESSION)
def rapt_print(argument):
    """Print a tensor, a slice of it, or a number and those around it: rapt print t[3, :, 5].
    Without an argument: the gradient that comes into the node that runs."""
    namespaces()
    expression, index = split_index(argument)
    v, index = tensor_at(argument) if expression else (incoming(*current()), index)
    view = viewed(v)
    if index is None:
        say(shown.tensor_text(Value(v)))
        return
    number = lambda text: int(text) if text.lstrip("-").isdigit() else int(evaluate(text))
    say(memory.part_text(view, memory.parse_index(index, view.sizes, number), index))


def incoming(node, frame):
    """The gradient that the running node was given."""
    if "node_has_run" in function_of(frame):
        raise Problem("the node has run, and its gradient has been passed on")
    return read(frame, "dy")


class Parameter(gdb.Function):
    """$parameter("blocks.0.mlp.up.weight"): the tensor of a parameter, by its name."""

    def __init__(self):
        super().__init__("parameter")

    def invoke(self, name):
        try:
            return parameter_of(name.string())["value"]
        except Problem as problem:
            raise gdb.GdbError("$parameter: %s" % problem)


Parameter()


# Nodes.


@command("rapt node", completion=gdb.COMPLETE_EXPRESSION)
def rapt_node(argument):
    """Say what made a tensor: rapt node [TENSOR or NODE].
    Name, line, module, inputs, what is saved. Without an argument: the
    node that runs. Leaves it in $node."""
    node = node_or_current(argument)
    set_variables(node)
    say(shown.node_text(Value(node)))


def source_line(file, line):
    here = os.path.dirname(os.path.realpath(__file__))
    for folder in ("", os.path.join(here, "..", "..")):
        try:
            with open(os.path.join(folder, file), encoding="utf-8") as lines:
                return lines.read().split("\n")[line - 1].strip()
        except (OSError, IndexError):
            pass
    try:
        text = gdb.execute("list %s:%d,%d" % (file, line, line), to_string=True)
        return text.split("\t", 1)[1].strip()
    except (gdb.error, IndexError):
        return "(the source is not here)"


@command("rapt where", completion=gdb.COMPLETE_EXPRESSION)
def rapt_where(argument):
    """Show the lines of the forward that made a node, and its inputs: rapt where [TENSOR or NODE]."""
    node = node_or_current(argument)
    seen = set()

    def line(node, depth):
        v = Value(node).dynamic()
        if v.address in seen or depth > 2:
            return
        seen.add(v.address)
        where = v.field("where")
        file, number = memory.c_text(where.field("file")), where.field("line").int()
        text = "  " * depth + shown.describe(v)
        if file:
            text += " in %s\n%s    %s" % (memory.c_text(where.field("function")), "  " * depth, source_line(file, number))
        say(text)
        for pointer in memory.elements_of(v.field("inputs")):
            if memory.pointer_of(pointer).int():
                line(memory.pointer_of(pointer).target().v, depth + 1)

    line(node, 0)
    if Value(node).field("released").int():
        say("  (its inputs were freed after backward)")


# Parameters.


def parameters():
    """(namespace, name, node) of each there is."""
    for space in namespaces():
        symbol = gdb.lookup_static_symbol(space + "::(anonymous namespace)::live_parameters")
        if symbol is None:
            continue
        for pointer in memory.elements_of(Value(symbol.value())):
            node = pointer.target().v
            yield space, shown.describe(Value(node)), node


def parameter_of(name):
    """The node of the parameter of this name; Problem without one."""
    for _, full, node in parameters():
        if full == name:
            return node
    raise Problem("there is no parameter %s; rapt grads lists them" % name)


@command("rapt grads")
def rapt_grads(argument):
    """List the gradients of all parameters by norm, and their ratio to the weights': rapt grads [--top N]."""
    match = re.match(r"(?:--top[ =](\d+))?$", argument)
    if not match:
        raise Problem("there is only --top N")
    rows, without = [], 0
    for _, name, node in parameters():
        gradient, weight = memory.view_of(Value(node["gradient"])), memory.view_of(Value(node["value"]))
        if gradient is None:
            without += 1
            continue
        g, w = memory.Statistics(gradient), memory.Statistics(weight)
        rows.append((g.finite, -g.norm, g, w, name))
    if not rows and not without:
        raise Problem("there are no parameters (tensors that a Module's param() made)")
    rows.sort(key=lambda row: row[:2])
    say("%12s %12s  %s" % ("norm", "of weight's", "parameter"))
    for _, _, g, w, name in rows[: int(match.group(1) or len(rows))]:
        say("%12.4g %12s  %s%s" % (g.norm, "%.4g" % (g.norm / w.norm) if w.norm else "-", name,
                                   " (%s)" % g.bad() if g.bad() else ""))
    say("%d parameters with a gradient, %d without" % (len(rows), without))


# The graph.


MOST_NODES = 5000


def reachable(roots):
    """Nodes under `roots` as values, newest first, at most MOST_NODES; and a note if there are more."""
    todo, seen, note = list(roots), {}, ""
    while todo:
        node = Value(todo.pop()).dynamic()
        if node.address in seen:
            continue
        if len(seen) == MOST_NODES:
            note = "; the graph has more, which were left out"
            break
        seen[node.address] = node
        for pointer in memory.elements_of(node.field("inputs")):
            if memory.pointer_of(pointer).int():
                todo.append(memory.pointer_of(pointer).target().v)
    return sorted(seen.values(), key=lambda n: -n.field("sequence").int()), note


def colour(node):
    """By the norm of the gradient: white unknown, red not finite, from pale to dark blue from 1e-6 to 1e2."""
    for name in ("gradient", "incoming"):
        view = memory.view_of(node.field(name))
        if view is not None:
            s = memory.Statistics(view)
            if not s.finite:
                return "#ff6666"
            level = min(max(math.log10(s.norm + 1e-30) + 6, 0), 8) / 8
            return "#%02x%02xff" % (int(235 - 120 * level), int(240 - 90 * level))
    return "#ffffff"


def dot_text(nodes):
    lines = ["digraph rapt {", "  rankdir=BT; node [shape=box style=filled fontname=Helvetica];"]
    drawn = {n.address for n in nodes}
    for n in nodes:
        label = "%s\\n%s" % (shown.describe(n), memory.tuple_text(memory.sizes_of(n.field("shape"))))
        lines.append('  n%d [label="%s" fillcolor="%s"];' % (n.field("sequence").int(), label, colour(n)))
        for pointer in memory.elements_of(n.field("inputs")):
            if memory.pointer_of(pointer).int() in drawn:
                below = memory.pointer_of(pointer).target().field("sequence").int()
                lines.append("  n%d -> n%d;" % (below, n.field("sequence").int()))
    return "\n".join(lines + ["}"]) + "\n"


@command("rapt graph", completion=gdb.COMPLETE_FILENAME)
def rapt_graph(argument):
    """Draw the graph under a node, with Graphviz: rapt graph FILE.svg [TENSOR or NODE].
    Without a node: under the one that runs."""
    file, _, expression = argument.partition(" ")
    if not file:
        raise Problem("where to? rapt graph FILE.svg")
    node = node_or_current(expression)
    nodes, more = reachable([node])
    text, dot = dot_text(nodes), shutil.which("dot")
    if file.endswith(".dot") or not dot:
        file = re.sub(r"\.\w+$", "", file) + ".dot"
        with open(file, "w", encoding="utf-8") as out:
            out.write(text)
    else:
        kind = os.path.splitext(file)[1][1:] or "svg"
        done = subprocess.run([dot, "-T" + kind, "-o", file], input=text.encode(), stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise Problem("dot failed: %s" % done.stderr.decode().strip())
    note = "" if dot or argument.startswith(file) else " (there is no Graphviz here: `dot -Tsvg` makes a picture of it)"
    say("%d nodes in %s%s%s" % (len(nodes), file, note, more))


@command("rapt check", completion=gdb.COMPLETE_EXPRESSION)
def rapt_check(argument):
    """Compare the backward of one node, on the very inputs that it had, with differences: rapt check [TENSOR or NODE].
    Calls a function of the program. Needs `rapt keep on` before the forward."""
    node = node_or_current(argument)
    process()
    if not memory.elements_of(Value(node).field("kept")) and not Value(node).field("leaf_").int():
        raise Problem("%s kept no inputs%s: `rapt keep on`, and go to the next step" % (
            shown.describe(Value(node)), ", or they were freed after backward" * Value(node).field("released").int()))
    space = re.search(r"rapt::f\d\d", str(node.type.strip_typedefs())).group()
    check = gdb.lookup_global_symbol(space + "::detail::check_node").value()
    enabled = [b for b in gdb.breakpoints() if b.enabled]
    for b in enabled:
        b.enabled = False
    try:
        say(check(node.address.cast(check.type.fields()[0].type)).string())
    finally:
        for b in enabled:
            b.enabled = True
