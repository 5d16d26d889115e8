"""rapt in lldb: tensors, shapes, nodes, attention options and modules are shown as tools/gdb/rapt.py shows them.

(lldb) command script import tools/lldb/rapt_lldb.py
(lldb) frame variable x            or: print x
(lldb) rapt model                  anything, also a module of your own, a pointer to a node, t[3, :, 5]"""

import os
import re
import sys

import lldb

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "gdb"))
import rapt_memory as memory  # noqa: E402
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
        name = target.ResolveLoadAddress(vtable).GetSymbol().GetName() or ""
        kind = target.FindFirstType(name[len("vtable for "):]) if name.startswith("vtable for ") else None
        return self._at(self.address, kind) if kind and kind.IsValid() else self

    def read(self, address, size):
        error = lldb.SBError()
        data = self.v.GetProcess().ReadMemory(address, size, error) if size else b""
        if error.Fail():
            raise Problem("the memory at %#x can't be read: freed, or not in this core file?" % address)
        return data


def bases_of(kind):
    out = []
    for i in range(kind.GetNumberOfDirectBaseClasses()):
        base = kind.GetDirectBaseClassAtIndex(i).GetType().GetCanonicalType()
        out += [base.GetName()] + bases_of(base)
    return out


def text_of(v):
    kind = memory.kind_of(v.type, v.bases())
    return memory.show(v, kind) if kind else None


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
        kind = memory.kind_of(v.type, v.bases())
        if kind is None:
            raise Problem("a value of type %s is nothing of rapt's" % v.type)
        if match:
            if kind != memory.TENSOR:
                raise Problem("a value of type %s is no tensor" % v.type)
            view = memory.view_of(v)
            if view is None:
                raise Problem("this tensor holds nothing")
            result.AppendMessage(memory.part_text(view, memory.parse_index(match.group(2), view.sizes), match.group(2)))
        else:
            result.AppendMessage(memory.show(v, kind))
    except Problem as problem:
        result.SetError("rapt: %s" % problem)


def __lldb_init_module(debugger, _):
    for command in (r"type summary add -e -x '^rapt::f(32|64)::\w+$' -F rapt_lldb.summary -w rapt",
                    "type category enable rapt", "command script add -f rapt_lldb.rapt rapt"):
        debugger.HandleCommand(command)
