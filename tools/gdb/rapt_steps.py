"""The commands that go: they run the program to a place between two nodes of a backward pass."""

import re

import gdb

import rapt_memory as memory
import rapt_shown as shown
from rapt_gdb import (BACKWARD, HAS_RUN, RUN_NODE, Problem, Value, command, current, evaluate, frames, function_of,
                      is_kind, namespaces, no_argument, node_or_current, process, read, say, set_variables, tensors_of)
from rapt_print import parameter_of, parameters, reachable, tensor_at, viewed

# Whether nodes should keep their inputs and results (autograd/debugger.h).


def keep(on):
    gdb.execute("set environment RAPT_KEEP_VALUES 1" if on else "unset environment RAPT_KEEP_VALUES")
    if gdb.selected_inferior().pid:
        process()
        for space in namespaces():
            gdb.execute("set var %s::detail::keep_values = %d" % (space, on))


@command("rapt keep")
def rapt_keep(argument):
    """Have nodes keep their inputs and results until they have run, or not: rapt keep on|off.
    It holds from the next forward on. Then rapt node shows them, rapt check works and rapt until finds the operation where the forward went wrong; a step
    holds all its intermediate results at once. `rapt until` and `rapt backward break` turn it on."""
    namespaces()
    if argument not in ("on", "off"):
        raise Problem("on or off?")
    keep(argument == "on")


# What is wanted: op=…, module=…, nth=….


class Wanted:
    """Counts the nodes of a pass that fit, and says when the nth is there."""

    def __init__(self, text, names):
        self.wants, self.nth, self.seen, self.last = {}, 1, 0, 0
        for word in text.split():
            name, _, value = word.partition("=")
            if name not in names or not value:
                raise Problem("there is no %s; there are %s" % (word, " ".join(n + "=…" for n in names)))
            self.wants[name] = value
        if "nth" in self.wants:
            if not self.wants["nth"].isdigit() or int(self.wants["nth"]) < 1:
                raise Problem("nth counts from 1, got %s" % self.wants["nth"])
            self.nth = int(self.wants.pop("nth"))

    def fits(self, node):
        v = Value(node)
        sequence = v.field("sequence").int()
        if sequence >= self.last:
            self.seen = 0  # nodes run newest first: another pass
        self.last = sequence
        module, leaf = shown.module_of(v), v.field("leaf_").int()
        for name, value in self.wants.items():
            if name == "op" and memory.c_text(v.field("name_")) != value:
                return False
            if name == "module" and module != value and not module.startswith(value + "."):
                return False
            if name == "parameter" and not (leaf and shown.describe(v) == value):
                return False
        self.seen += 1
        return self.seen == self.nth


class BackwardBreak(gdb.Breakpoint):
    """A breakpoint like others: `info breakpoints` lists it, `delete` removes it."""

    def __init__(self, wanted):
        self.wanted = wanted
        super().__init__(function="run_node")

    def stop(self):
        try:
            frame = gdb.newest_frame()
            if not RUN_NODE.match(function_of(frame)):
                return False
            node = read(frame, "node")
            if not self.wanted.fits(node):
                return False
            set_variables(node)
            gdb.write("about to run " + arriving(node, read(frame, "dy")) + "\n")
            return True
        except Problem as problem:
            gdb.write("rapt backward break: %s\n" % problem)
            return True


@command("rapt backward", prefix=True)
def rapt_backward(argument):
    """Breakpoints between the nodes of a backward pass: rapt backward break."""
    if argument:
        raise Problem("there is no rapt backward %s; there is rapt backward break" % argument)
    gdb.execute("help rapt backward")


@command("rapt backward break")
def rapt_backward_break(argument):
    """Stop before nodes: rapt backward break [op=softmax] [module=blocks.3.attention] [nth=2].
    Before each node that fits, or the nth of a pass. A module stands for what is in it too. `delete` takes the breakpoint away."""
    namespaces()
    if gdb.selected_inferior().pid:
        process()
    BackwardBreak(Wanted(argument, ["op", "module", "nth"]))
    keep(True)


# Running.


def arriving(node, dy):
    return "%s: its gradient %s comes in with %s" % (
        shown.describe(Value(node)), memory.tuple_text(memory.sizes_of(Value(dy).field("shape"))),
        memory.norm_text(memory.view_of(Value(dy))))


def leaving(node, dx):
    v = Value(node)
    if v.field("leaf_").int():
        return "  it keeps the gradient: " + shown.gradient_text(v)
    lines = []
    for i, (view, pointer) in enumerate(zip(tensors_of(dx), memory.elements_of(v.field("inputs")))):
        to = memory.pointer_of(pointer)
        if not to.int():
            continue
        how = ""
        if view is None:  # Node::backward_add
            view, how = memory.view_of(to.target().field("incoming")), ", added to what others sent"
        lines.append("  to %s%s: %s" % (shown.describe(to.target()), how, memory.norm_text(view)))
    return "\n".join(lines)


def quietly(start):
    """Runs without gdb's own words at the stop, other than for a signal."""
    signals = []
    handler = lambda event: signals.append(event.stop_signal) if isinstance(event, gdb.SignalEvent) else None
    gdb.events.stop.connect(handler)
    gdb.execute("set suppress-cli-notifications on")
    try:
        gdb.execute(start, to_string=True)
    finally:
        gdb.execute("set suppress-cli-notifications off")
        gdb.events.stop.disconnect(handler)
    for name in signals:
        say("stopped by " + name)


class Journey:
    """One run of the program, past nodes, until `before` or `after` a node says stop (by returning a text)."""

    def __init__(self, before, after, one_pass):
        self.before, self.after, self.one_pass = before, after, one_pass
        self.text, self.problem, self.over = None, None, False

    def visit(self, which, name):
        """A breakpoint's stop(): what the visitor says is kept, and stops."""
        try:
            frame = gdb.newest_frame()
            if not (RUN_NODE if name == "dy" else HAS_RUN).match(function_of(frame)):
                return False
            self.text = which(read(frame, "node"), read(frame, name)) if which else None
        except (Problem, gdb.error) as problem:
            self.problem = problem
            return True
        return self.text is not None

    def go(self, start="continue"):
        journey = self

        class Before(gdb.Breakpoint):
            def stop(self):
                return journey.visit(journey.before, "dy")

        class After(gdb.Breakpoint):
            def stop(self):
                return journey.visit(journey.after, "dx")

        class End(gdb.FinishBreakpoint):
            def stop(self):
                journey.over = True
                return True

            def out_of_scope(self):
                journey.over = True

        points = [Before(function="run_node", internal=True), After(function="node_has_run", internal=True)]
        outermost = None
        if self.one_pass:
            for frame in frames():
                if BACKWARD.match(function_of(frame)) and frame.type() == gdb.NORMAL_FRAME:
                    outermost = frame
            if outermost is not None and outermost.older() is not None:
                points.append(End(outermost, internal=True))
        try:
            quietly(start)
        finally:
            for point in points:
                if point.is_valid():
                    point.delete()
        if self.problem:
            raise self.problem
        if not gdb.selected_inferior().pid:
            say("the program has ended")
        elif self.text is None and not self.over:
            say("stopped by something else:")
            gdb.execute("frame")
        elif self.over and self.text is None:
            say("the backward pass is over")
        return self.text


@command("rapt step")
def rapt_step(argument):
    """Run one node of the backward pass, and say what came in and what went out.
    Stops before the next.
    Outside of a backward pass: stops before the first node of the next one."""
    no_argument(argument)
    namespaces()
    process()
    ran = []

    def after(node, dx):
        ran.append(leaving(node, dx))

    def before(node, dy):
        set_variables(node)
        return "next: " + arriving(node, dy)

    try:
        node, frame = current()
        if RUN_NODE.match(function_of(frame)):
            say(arriving(node, read(frame, "dy")))
    except Problem:
        pass
    text = Journey(before, after, one_pass=True).go()
    if ran:
        say(ran[0])
    if text:
        say(text)


def forward_origin(node):
    """The oldest recorded operation under `node` whose result isn't finite, though its inputs are, and True; or only
    the oldest, and False; and a note if the graph was too large to be looked at whole."""
    broken, made_here = None, False
    nodes, more = reachable([node])
    for v in nodes:
        kept = [memory.view_of(t) for t in memory.elements_of(v.field("kept"))]
        if kept and not memory.Statistics(kept[-1]).finite:
            sound = all(k is None or memory.Statistics(k).finite for k in kept[:-1])
            if sound or not made_here:
                broken, made_here = v, made_here or sound
    return broken, made_here, more


def origin_text(node):
    bad = [name for _, name, p in parameters() if not memory.Statistics(memory.view_of(Value(p["value"]))).finite]
    if bad:
        return "\nthe parameter %s is not finite itself" % bad[0]
    origin, made_here, more = forward_origin(node)
    if origin is None:
        return ""
    set_variables(origin.v)
    kept = memory.elements_of(origin.field("kept"))
    text = "\nin the forward, the first result that is not finite was made%s by $node =\n  %s" % (
        " from finite numbers" if made_here else ", from numbers that were not finite either,", shown.describe(origin))
    for i, t in enumerate(kept):
        text += "\n    %s: %s" % ("result" if i + 1 == len(kept) else "input %d" % i, shown.tensor_line(t))
    return text + (more and "\n    " + more[2:])


@command("rapt until")
def rapt_until(argument):
    """Run until a gradient or a node: rapt until nan|inf|norm>X|op=…|module=…|parameter=….
    Until a node gives a gradient with a NaN, an Inf, or a norm above X; or until a node of that operation, module or parameter is next. For nan and inf it also
    names the operation of the forward where they began. Starts the program if it isn't running."""
    namespaces()
    match = re.match(r"norm\s*>\s*([-+.\deE]+)$", argument)
    if argument in ("nan", "inf"):
        bad = lambda view: getattr(memory.Statistics(view), argument) > 0
    elif match:
        try:
            most = float(match.group(1))
        except ValueError:
            raise Problem("%s is no number" % match.group(1))
        bad = lambda view: memory.Statistics(view).norm > most or not memory.Statistics(view).finite
    else:
        bad = None
        if not argument or argument.startswith("norm"):
            raise Problem("until what? nan, inf, norm>X, op=…, module=… or parameter=…")
        wanted = Wanted(argument, ["op", "module", "parameter", "nth"])

    def found(node, dy, why):
        set_variables(node)
        return why + (origin_text(node) if argument in ("nan", "inf") else "")

    def before(node, dy):
        if bad is None:
            return found(node, dy, "next: " + arriving(node, dy)) if wanted.fits(node) else None
        view = memory.view_of(Value(dy))
        return found(node, dy, "next: " + arriving(node, dy)) if view and bad(view) else None

    def after(node, dx):
        if bad is None or not any(view is not None and bad(view) for view in tensors_of(dx)):
            return None
        return found(node, None, "%s has run:\n%s" % (shown.describe(Value(node)), leaving(node, dx)))

    live = gdb.selected_inferior().pid
    if live:
        process()
        if bad is None and "parameter" in wanted.wants and any(parameters()):
            parameter_of(wanted.wants["parameter"])
    keep(True)
    text = Journey(before, after, one_pass=False).go("continue" if live else "run")
    if text:
        say(text)
    elif bad is None and not gdb.selected_inferior().pid:
        say("no node fitted %s" % argument)


@command("rapt watch", completion=gdb.COMPLETE_EXPRESSION)
def rapt_watch(argument):
    """Stop when a number is written to, by a hardware watchpoint: rapt watch t[3, 17].
    When the tensor is freed its
    memory is used again for others: then delete the watchpoint."""
    namespaces()
    process()
    v, index = tensor_at(argument)
    view = viewed(v)
    number = lambda text: int(text) if text.lstrip("-").isdigit() else int(evaluate(text))
    part = view.part(memory.parse_index(index or "", view.sizes, number) if index else [])
    if part.sizes:
        raise Problem("one number can be watched, and this is %s of them: rapt watch t[3, 17]" % memory.tuple_text(part.sizes))
    kind = "double" if part.code == "d" else "float"
    gdb.Breakpoint("*(%s *) %#x" % (kind, part.address), gdb.BP_WATCHPOINT, gdb.WP_WRITE)
    say("%s is %.9g at %#x" % (argument, part.values()[0], part.address))
