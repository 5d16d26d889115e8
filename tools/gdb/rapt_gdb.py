"""gdb's values as rapt_memory wants them, the printers, and what the commands share."""

import array
import re

import gdb
import gdb.printing

import rapt_memory as memory
import rapt_shown as shown
from rapt_memory import Problem


class Value:
    """A gdb.Value as rapt_memory wants it."""

    def __init__(self, v):
        if v.type.strip_typedefs().code in (gdb.TYPE_CODE_REF, gdb.TYPE_CODE_RVALUE_REF):
            v = v.referenced_value()
        self.v = v
        self.type = str(v.type.strip_typedefs().unqualified())

    @property
    def address(self):
        return int(self.v.address)

    @property
    def size(self):
        return self.v.type.sizeof

    def field(self, name):
        try:
            return Value(self.v[name])
        except (gdb.error, RuntimeError):
            raise Problem("%s has no member %s here: no type information?" % (self.type, name))

    def fields(self):
        return [(f.name, Value(self.v[f])) for f in self.v.type.strip_typedefs().fields()
                if not f.is_base_class and hasattr(f, "bitpos") and f.name and not f.name.startswith("_vptr")]

    def bases(self):
        return bases_of(self.v.type)

    def _number(self, kind):
        try:
            return kind(self.v)
        except gdb.MemoryError as error:
            raise Problem(str(error))
        except gdb.error as error:
            raise Problem("%s: was it optimised away?" % error)

    def int(self):
        return self._number(int)

    def float(self):
        return self._number(float)

    def target(self):
        return self.element(0)

    def element(self, i):
        return Value(element(self.v, i))

    def dynamic(self):
        kind, name = class_of(array.array("Q", self.read(self.address, 8))[0])
        found = Value(element(self.v.address.cast(VOID).cast(kind.pointer()), 0)) if kind else self
        found.named = name or found.type
        return found

    @staticmethod
    def read(address, size):
        try:
            return gdb.selected_inferior().read_memory(address, size).tobytes() if size else b""
        except gdb.MemoryError:
            raise Problem("the memory at %#x can't be read: freed, or not in this core file?" % address)


VOID = gdb.lookup_type("void").pointer()


def element(pointer, i):
    """pointer[i], as an element of an array: for a pointer to a class gdb would look for the class of its vtable, and
    complains when that is a template of a lambda."""
    kind = pointer.type.strip_typedefs().target()
    try:
        return pointer.cast(kind.array(max(i, 0)).pointer()).dereference()[i]
    except gdb.MemoryError as error:
        raise Problem(str(error))


CLASSES = {}  # by the address of the vtable


def class_of(vtable):
    """The class with this vtable, or None, and its name: by the vtable's name, or as the `this` of its first virtual
    function."""
    if vtable not in CLASSES:
        found = None
        match = re.match(r"vtable for (.*) \+ 16", gdb.execute("info symbol %#x" % vtable, to_string=True))
        try:
            if match:
                found = gdb.lookup_type(match.group(1))
        except gdb.error:
            function = array.array("Q", Value.read(vtable + 16, 8))[0]
            block = gdb.block_for_pc(function)
            if block and block.function and block.function.type.fields():
                found = block.function.type.fields()[0].type.target().unqualified()
        CLASSES[vtable] = found, match.group(1) if match else ""
    return CLASSES[vtable]


def bases_of(kind):
    out = []
    kind = kind.strip_typedefs()
    if kind.code == gdb.TYPE_CODE_STRUCT:
        for f in kind.fields():
            if f.is_base_class:
                out += [str(f.type.strip_typedefs())] + bases_of(f.type)
    return out


# The printers.


class Printer:
    def __init__(self, v, kind):
        self.v, self.kind = v, kind

    def to_string(self):
        options = gdb.print_options() if hasattr(gdb, "print_options") else {}
        return shown.show(Value(self.v), self.kind, brief=options.get("summary", False))  # brief: in a backtrace


class Printers(gdb.printing.PrettyPrinter):
    def __init__(self):
        super().__init__("rapt")
        self.kinds = {}

    def __call__(self, v):
        kind = v.type.strip_typedefs().unqualified()
        if kind.code != gdb.TYPE_CODE_STRUCT or v.is_optimized_out or v.address is None:
            return None
        name = str(kind)
        if name not in self.kinds:
            self.kinds[name] = shown.kind_of(name, bases_of(kind))
        return Printer(v, self.kinds[name]) if self.kinds[name] else None


gdb.printing.register_pretty_printer(None, Printers(), replace=True)

# What the commands share.

NAMESPACES = ["rapt::f32", "rapt::f64"]


def say(text):
    gdb.write(text + "\n")


def has(expression):
    try:
        return bool(int(gdb.parse_and_eval("(long)&" + expression)))
    except (gdb.error, gdb.MemoryError):
        return False


def namespaces():
    """Those of rapt's that are in the program."""
    found = []
    for name in NAMESPACES:
        try:
            gdb.lookup_type(name + "::Node")  # which a program may know of a library that isn't loaded yet
            if has("'%s::detail::check_node'" % name):
                found.append(name)
        except gdb.error:
            pass
    if found:
        return found
    if not gdb.objfiles():
        raise Problem("there is no program: give one with `file`")
    if any(has("'%s::detail::check_node'" % n) for n in NAMESPACES):  # of the library itself
        raise Problem("this program's type information was stripped; use the file from before `strip -g`")
    if not has("main"):
        raise Problem("this program has no symbols: was it stripped? Use the file from before `strip`")
    raise Problem("there is no rapt in this program (or, if its library is shared, not yet: start the program first)")


def process():
    """The live process; Problem without one."""
    inferior = gdb.selected_inferior()
    if inferior.pid == 0:
        raise Problem("this needs a running program: start it first")
    if inferior.connection is not None and inferior.connection.type == "core":
        raise Problem("this needs a running program, and this is a core file")
    return inferior


def has_local(frame, name):
    """Whether the function of this frame has a variable of this name here, or its class a member, or its file a variable."""
    try:
        block = frame.block()
        symbol, is_member = gdb.lookup_symbol(name, block)
        file = frame.find_sal().symtab
        if is_member or symbol and symbol.is_variable and symbol.symtab and file and symbol.symtab.filename == file.filename:
            return True
    except (RuntimeError, gdb.error):
        return False
    while block is not None and not block.is_global and not block.is_static:
        if any(s.name == name and (s.is_variable or s.is_argument) for s in block):
            return True
        block = None if block.function else block.superblock
    return False


def nearest(text, selected):
    """The frame from the selected one on in which the first name of an expression is a local variable, or `selected`:
    any name is a global one somewhere in the libraries."""
    match = re.match(r"[\s*&(!~-]*([A-Za-z_]\w*)(?!\w|\s*::)", text)
    frame = selected
    while match and frame is not None:
        if has_local(frame, match.group(1)):
            return frame
        frame = frame.older()
    return selected


def evaluate(text):
    """In the selected frame, or else in the nearest one around it that knows the names."""
    refuse_gone(text)
    selected = gdb.selected_frame() if gdb.selected_inferior().pid else None
    frame, problem = nearest(text, selected), None
    try:
        if frame is not None:
            frame.select()
        while True:
            try:
                v = gdb.parse_and_eval(text)
                return v.referenced_value() if v.type.code in (gdb.TYPE_CODE_REF, gdb.TYPE_CODE_RVALUE_REF) else v
            except gdb.error as error:
                problem = problem or Problem(str(error))
                frame = frame.older() if frame and "in current context" in str(error) else None
                if frame is None:
                    raise problem
                frame.select()
    finally:
        if selected:
            selected.select()


def is_kind(v, kind):
    base = v.type.strip_typedefs().unqualified()
    return base.code == gdb.TYPE_CODE_STRUCT and shown.kind_of(str(base), bases_of(base)) == kind


def node_of(v):
    """The node that a tensor, pointer, handle or node means."""
    kind = v.type.strip_typedefs()
    if kind.code == gdb.TYPE_CODE_PTR:
        if int(v) == 0:
            raise Problem("a null pointer, not a node")
        return node_of(v.dereference())
    if is_kind(v, shown.NODE):
        Value.read(int(v.address), 8)
        return v
    if is_kind(v, shown.TENSOR):
        pointer = memory.pointer_of(Value(v).field("node"))
        if pointer.int() == 0:
            raise Problem("this tensor has no node: no gradient is wanted of it")
        return pointer.target().v
    if is_kind(v, shown.HANDLE):
        return node_of(v["node"])
    name = str(kind.unqualified())
    if name.startswith("std::weak_ptr<"):
        count = v["_M_refcount"]["_M_pi"]
        if memory.uses(Value(count)) == 0:
            raise Problem("expired: this node is gone")
        return v["_M_ptr"].dereference()
    if name.startswith("std::shared_ptr<"):
        return node_of(memory.pointer_of(Value(v)).v)
    raise Problem("a value of type %s is neither a node nor a tensor" % name)


RUN_NODE = re.compile(r"rapt::f(32|64)::(\(anonymous namespace\)::)?run_node\b")
HAS_RUN = re.compile(r"rapt::f(32|64)::detail::node_has_run\b")
BACKWARD = re.compile(r"rapt::f(32|64)::(backward|gradients)\b")


def function_of(frame):
    """Empty for a stub that calls into a shared library: it bears the function's name, but has none of its variables."""
    function = frame.function() if frame.is_valid() else None
    name = function.name if function else frame.name() or ""
    return "" if name.endswith("@plt") else name


def frames():
    if not gdb.selected_inferior().pid:
        return
    try:
        frame = gdb.newest_frame()
    except gdb.error:
        return
    while frame is not None:
        yield frame
        frame = frame.older()


def read(frame, name):
    try:
        v = frame.read_var(name)
    except ValueError:
        raise Problem("the engine's frame has no variable `%s`: was its debug information stripped?" % name)
    except gdb.error as error:
        raise Problem("the engine's variable `%s` can't be read: %s" % (name, error))
    if v.is_optimized_out:
        raise Problem("the engine's variable `%s` is optimised away here" % name)
    return v.referenced_value() if v.type.code == gdb.TYPE_CODE_REF else v


def current():
    """The node that runs in the selected thread, and its frame."""
    namespaces()
    for frame in frames():
        name = function_of(frame)
        if RUN_NODE.match(name) or HAS_RUN.match(name):
            return read(frame, "node"), frame
    if not gdb.selected_inferior().pid:
        raise Problem("no backward pass runs: the program isn't running")
    raise Problem("no backward pass runs in this thread; stop in one with `rapt backward break`, or name a node or a tensor")


def node_or_current(text):
    namespaces()
    return node_of(evaluate(text)) if text.strip() else current()[0]


def tensors_of(vector):
    return [memory.view_of(t) for t in memory.elements_of(Value(vector))]


SEQUENCES = {}  # of the nodes that $node has pointed to, by their addresses


def set_variables(node):
    """$node, a pointer: print *$node, rapt print $node->kept[0]"""
    gdb.set_convenience_variable("node", node.address)
    SEQUENCES[int(node.address)] = int(node["sequence"])


def refuse_gone(text):
    """Problem for $node, or a copy of it, whose memory is another node's now."""
    for name in re.findall(r"\$([A-Za-z_]\w*)", text):
        v = gdb.convenience_variable(name)
        if v is None or v.type.strip_typedefs().code != gdb.TYPE_CODE_PTR or int(v) not in SEQUENCES:
            continue
        node = v.dereference()
        if is_kind(node, shown.NODE) and int(node["sequence"]) != SEQUENCES[int(v)]:
            raise Problem("$%s is gone: its memory holds another node now" % name)


def no_argument(argument):
    if argument:
        raise Problem("takes no argument, got %s" % argument)


def command(name, prefix=False, completion=gdb.COMPLETE_NONE):
    """Makes a function(argument) a command that says what is wrong in one line."""

    def wrap(function):
        class Command(gdb.Command):
            __doc__ = function.__doc__

            def invoke(self, argument, from_tty):
                self.dont_repeat()
                try:
                    function(argument.strip())
                except (Problem, OSError, gdb.MemoryError, gdb.error) as problem:
                    raise gdb.GdbError("%s: %s" % (name, problem))

        Command(name, gdb.COMMAND_DATA, completion, prefix)
        return function

    return wrap
