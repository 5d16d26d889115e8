"""rapt in lldb: tensors, shapes, nodes, attention options and modules are shown as tools/gdb/rapt.py shows them.

(lldb) command script import tools/lldb/rapt_lldb.py
(lldb) frame variable x            or, in a live process: print x
(lldb) rapt model                  anything, also a module of your own, a pointer to a node, t[3, :, 5]

lldb finds fewer classes by their vtables than gdb: of an operation in an unnamed namespace it may show the name alone."""

import os
import re
import sys

import lldb

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "gdb"))
import rapt_memory as memory  # noqa: E402
import rapt_shown as shown  # noqa: E402
from rapt_memory import Problem  # noqa: E402


class Value:
    """An lldb.SBValue as rapt_memory wants it."""

    def __init__(self, v):
        v = v.GetNonSyntheticValue()
        self.v = v.Dereference() if v.GetType().IsReferenceType() else v
        self.kind = self.v.GetType().GetCanonicalType().GetUnqualifiedType()
        self.type = self.kind.GetName()

    @property
    def address(self):
        return self.v.GetLoadAddress()

    @property
    def size(self):
        return self.v.GetByteSize()

    def field(self, name):
        member = self.v.GetChildMemberWithName(name)
        if not member.IsValid():
            raise Problem("%s has no member %s here: no type information?" % (self.type, name))
        return Value(member)

    def fields(self):
        members = [self.kind.GetFieldAtIndex(i).GetName() for i in range(self.kind.GetNumberOfFields())]
        return [(name, self.field(name)) for name in members if name and not name.startswith("_vptr")]

    def bases(self):
        return bases_of(self.kind)

    def int(self):
        if self.kind.IsPointerType():
            return self.v.GetValueAsUnsigned()
        return self.v.GetValueAsSigned()

    def float(self):
        error = lldb.SBError()
        data = self.v.GetData()
        return data.GetDouble(error, 0) if self.size == 8 else data.GetFloat(error, 0)

    def _at(self, address, kind):
        target = self.v.GetTarget()
        return Value(target.CreateValueFromAddress("value", lldb.SBAddress(address, target), kind))

    def target(self):
        return self.element(0)

    def element(self, i):
        pointee = self.kind.GetPointeeType()
        return self._at(self.int() + i * pointee.GetByteSize(), pointee)

    def dynamic(self):
        target = self.v.GetTarget()
        vtable = int.from_bytes(self.read(self.address, 8), "little")
        # The second virtual function, the deleting destructor: for the first a class may have its base's.
        destructor = int.from_bytes(self.read(vtable + 8, 8), "little")
        name = (target.ResolveLoadAddress(destructor).GetSymbol().GetName() or "").split("::~")[0]
        kind = target.FindFirstType(name)
        found = self._at(self.address, kind) if kind.IsValid() else self
        found.named = name
        return found

    def read(self, address, size):
        error = lldb.SBError()
        target = self.v.GetTarget()  # and not its process: a core file leaves constants to the program's file
        data = target.ReadMemory(target.ResolveLoadAddress(address), size, error) if size else b""
        if error.Fail() or len(data) != size:
            raise Problem("the memory at %#x can't be read: freed, or not in this core file?" % address)
        return data


def bases_of(kind):
    out = []
    for i in range(kind.GetNumberOfDirectBaseClasses()):
        base = kind.GetDirectBaseClassAtIndex(i).GetType().GetCanonicalType()
        out += [base.GetName()] + bases_of(base)
    return out


def text_of(v):
    kind = shown.kind_of(v.type, v.bases())
    return shown.show(v, kind) if kind else None


def summary(v, _):
    return text_of(Value(v))


def rapt(debugger, command, context, result, _):
    """rapt EXPRESSION: shows a tensor, t[3, :, 5], a node or pointer to one, a module, attention options."""
    match = re.match(r"(.*)\[([^\[\]]*)\]$", command.strip())
    frame = context.GetFrame()
    v = frame.GetValueForVariablePath(match.group(1) if match else command.strip())
    if not v.IsValid() or v.GetError().Fail():
        result.SetError("rapt: there is no %s here" % command)
        return
    try:
        v = Value(v)
        if v.kind.IsPointerType():
            v = v.target()
        if v.type.startswith("std::shared_ptr<"):
            v = memory.pointer_of(v).target()
        kind = shown.kind_of(v.type, v.bases())
        if kind is None:
            raise Problem("a value of type %s is nothing of rapt's" % v.type)
        if match:
            if kind != shown.TENSOR:
                raise Problem("a value of type %s is no tensor" % v.type)
            view = memory.view_of(v)
            if view is None:
                raise Problem("this tensor holds nothing")
            result.AppendMessage(memory.part_text(view, memory.parse_index(match.group(2), view.sizes), match.group(2)))
        else:
            result.AppendMessage(shown.show(v, kind))
    except Problem as problem:
        result.SetError("rapt: %s" % problem)


def __lldb_init_module(debugger, _):
    modules = "[A-Z][A-Za-z]*(Linear|Embedding|Norm|Dropout|Attention|Mlp|Block)|Linear|Embedding|Dropout|Mlp|Gpt"
    names = "|".join(shown.TEXTS) + "|" + modules
    for command in (r"type summary add -x '^rapt::(f(32|64)::)?(%s)$' -F rapt_lldb.summary -w rapt" % names,
                    "type category enable rapt", "command script add -f rapt_lldb.rapt rapt"):
        debugger.HandleCommand(command)
