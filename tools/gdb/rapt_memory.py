"""How rapt's values lie in memory, and how they are shown. Knows no debugger: gdb/rapt.py and lldb/rapt_lldb.py give it
values, each an object with

  type           its type's name, without const, & and typedefs
  address        where it lies
  field(name)    a member, also of a base; Problem if there is none
  fields()       (name, value) of its own members, without bases
  bases()        names of all its base classes
  int(), float() a number; int() of a pointer is its address
  target()       what a pointer points to
  element(i)     *(pointer + i)
  dynamic()      itself as the class that its vtable says
  read(a, n)     n bytes of the program's memory from address a; Problem if there are none

Nothing here or in rapt_shown calls a function of the program, so all of it works on a core file too. Written for libstdc++."""

import array
import math
import operator
import re

SHOWN = 8  # values of a row, rows of a matrix
MOST = 1 << 22  # more elements are sampled for statistics
MAX_RANK = 6
OURS = r"rapt::(?:f(?:32|64)::)?"  # lldb leaves the inline namespace out


class Problem(Exception):
    """What is wrong, in words for the person at the debugger."""


# The standard library's things.


def text_of(v):
    """std::string"""
    size = v.field("_M_string_length").int()
    if not 0 <= size < 1 << 20:
        raise Problem("a string of %d bytes: uninitialised, or destroyed?" % size)
    return v.read(v.field("_M_dataplus").field("_M_p").int(), size).decode("utf-8", "replace")


def c_text(v):
    """const char*"""
    address, out = v.int(), b""
    while b"\0" not in out and len(out) < 4096:
        out += v.read(address + len(out), 1)
    return out.split(b"\0")[0].decode("utf-8", "replace")


def uses(v):
    """The use count behind a shared_ptr's or weak_ptr's _M_refcount._M_pi: an int after the pointer to the vtable."""
    return array.array("i", v.read(v.int() + 8, 4))[0] if v.int() else 0


def pointer_of(v):
    """What a std::shared_ptr holds, as a pointer; Problem if it was destroyed."""
    if v.field("_M_ptr").int() != 0:
        count = v.field("_M_refcount").field("_M_pi")
        if count.int() != 0:
            if not 0 < uses(count) < 1 << 24:
                raise Problem("expired: what it pointed to is gone")
    return v.field("_M_ptr")


def elements_of(v):
    """std::vector"""
    first, last = v.field("_M_impl").field("_M_start"), v.field("_M_impl").field("_M_finish").int()
    if first.int() == 0:
        return []
    size = first.target().size
    count = (last - first.int()) // size
    if not 0 <= count < 1 << 20:
        raise Problem("a vector of %d elements: uninitialised, or destroyed?" % count)
    return [first.element(i) for i in range(count)]


# Shapes and tensors.


def sizes_of(v):
    """Shape, as a list."""
    rank = v.field("rank").int()
    if not 0 <= rank <= MAX_RANK:
        raise Problem("a shape of rank %d: uninitialised, or destroyed?" % rank)
    first = v.field("sizes").field("_M_elems").address
    return list(array.array("q", v.read(first, 8 * rank)))


def tuple_text(sizes):
    return "(%s%s)" % (", ".join(str(s) for s in sizes), "," * (len(sizes) == 1))


class View:
    """Numbers at `address` with sizes and strides: a tensor, or a part of one."""

    def __init__(self, read, address, sizes, strides, code):
        self.read, self.address, self.sizes, self.strides, self.code = read, address, sizes, strides, code
        self.width = 4 if code == "f" else 8

    def count(self):
        return math.prod(self.sizes)

    def part(self, index):
        """One entry for each leading dimension: a number, or a slice that was made for its size."""
        address, sizes, strides = self.address, [], []
        for i, size, stride in zip(index, self.sizes, self.strides):
            if isinstance(i, slice):
                sizes.append(len(range(i.start, i.stop, i.step)))
                address += i.start * stride * self.width
                strides.append(stride * i.step)
            else:
                address += i * stride * self.width
        rest = len(index)
        return View(self.read, address, sizes + self.sizes[rest:], strides + self.strides[rest:], self.code)

    def values(self):
        """All numbers in row-major order."""
        if self.count() == 0:
            return array.array(self.code)
        reach = sum((n - 1) * s for n, s in zip(self.sizes, self.strides))
        numbers = array.array(self.code, self.read(self.address, (reach + 1) * self.width))
        if not self.sizes or dense(self.sizes, self.strides):
            return numbers
        out = array.array(self.code)

        def walk(d, at):
            n, s = self.sizes[d], self.strides[d]
            if d + 1 < len(self.sizes):
                for i in range(n):
                    walk(d + 1, at + i * s)
            elif s == 0:
                out.extend([numbers[at]] * n)
            else:
                out.extend(numbers[at : at + (n - 1) * s + 1 : s])

        walk(0, 0)
        return out


def dense(sizes, strides):
    step = 1
    for n, s in zip(reversed(sizes), reversed(strides)):
        if n != 1 and s != step:
            return False
        step *= n
    return True


def view_of(v):
    """The numbers of a Tensor; None for one that holds nothing."""
    storage = pointer_of(v.field("storage"))
    if storage.int() == 0:
        return None
    sizes, strides = sizes_of(v.field("shape")), sizes_of(v.field("strides"))
    data, offset = storage.target().field("data"), v.field("offset").int()
    code = "d" if data.target().type == "double" else "f"
    end = offset + sum((n - 1) * s for n, s in zip(sizes, strides)) + 1
    if len(sizes) != len(strides) or min(sizes, default=0) < 0 or offset < 0:
        raise Problem("no tensor: shape %s, strides %s" % (tuple_text(sizes), tuple_text(strides)))
    if math.prod(sizes) > 0 and end > storage.target().field("capacity").int():
        raise Problem("its storage is smaller than the tensor: destroyed?")
    return View(v.read, data.int() + offset * (4 if code == "f" else 8), sizes, strides, code)


class Statistics:
    def __init__(self, view):
        numbers = view.values()
        self.step = -(-len(numbers) // MOST) or 1
        numbers = numbers[:: self.step]
        self.nan = sum(map(operator.ne, numbers, numbers))
        self.inf = numbers.count(math.inf) + numbers.count(-math.inf)
        self.finite = not (self.nan or self.inf)
        if not self.finite:
            numbers = [x for x in numbers if math.isfinite(x)]
        self.empty = len(numbers) == 0
        self.norm = math.sqrt(sum(map(operator.mul, numbers, numbers)))
        if not self.empty:
            self.low, self.high, self.mean = min(numbers), max(numbers), math.fsum(numbers) / len(numbers)

    def bad(self):
        return " ".join(["%d NaN" % self.nan] * (self.nan > 0) + ["%d Inf" % self.inf] * (self.inf > 0))

    def __str__(self):
        text = "no finite numbers"
        if not self.empty:
            text = "min %.4g max %.4g mean %.4g norm %.4g" % (self.low, self.high, self.mean, self.norm)
        text += ", %d NaN, %d Inf" % (self.nan, self.inf)
        return text + (" (of every %dth number)" % self.step if self.step > 1 else "")


def norm_text(view):
    if view is None:
        return "none"
    s = Statistics(view)
    return ("norm %.4g" % s.norm) + (" and %s" % s.bad() if s.bad() else "")


def row_text(numbers, mark=None):
    shown = [("%.4g" if i != mark else ">%.4g<") % x for i, x in enumerate(numbers)]
    if len(shown) > SHOWN and mark is None:
        shown[SHOWN // 2 : -SHOWN // 2] = ["…"]
    return "[" + ", ".join(shown) + "]"


def matrix_text(view, indent="  "):
    """The numbers, the first matrix of a stack for all, in at most SHOWN rows."""
    if view.count() == 0:
        return indent + "[]"
    if not view.sizes:
        return indent + "%.6g" % view.values()[0]
    note = ""
    if len(view.sizes) > 2:
        zeros = [0] * (len(view.sizes) - 2)
        view, note = view.part(zeros), "%sat [%s:, :] of the rest\n" % (indent, "0, " * len(zeros))
    if len(view.sizes) == 1:
        return indent + row_text(view.values())
    rows = [indent + row_text(view.part([i]).values()) if i < SHOWN // 2 or i >= view.sizes[0] - SHOWN // 2 else None
            for i in range(view.sizes[0])]
    if len(rows) > SHOWN:
        rows[SHOWN // 2 : -SHOWN // 2] = [indent + "…"]
    return note + "\n".join(rows)


def parse_index(text, sizes, number=int):
    """"3, :, 5" for a tensor of these sizes, as View.part wants it; `number` reads an entry."""
    index = []
    entries = [e.strip() for e in text.split(",")]
    if len(entries) > len(sizes):
        raise Problem("%d indices for a tensor of %d dimensions, %s" % (len(entries), len(sizes), tuple_text(sizes)))
    for d, entry in enumerate(entries):
        size = sizes[d]
        try:
            if re.match(r"[-\d\s]*:[-\d\s:]*$", entry):
                bounds = [int(b) if b.strip() else None for b in entry.split(":")]
                bounds = slice(*bounds).indices(size)
                if bounds[2] < 0:
                    raise Problem("index %d: steps must be positive, got %s" % (d, entry))
                index.append(slice(*bounds))
                continue
            i = number(entry)
        except (ValueError, TypeError, RuntimeError):
            raise Problem("'%s' is no index: give numbers and slices, as in t[3, :, 5] or t[0, 2:8]" % entry)
        if not -size <= i < size:
            raise Problem("index %d is out of range for dimension %d of %s" % (i, d, tuple_text(sizes)))
        index.append(i + size if i < 0 else i)
    return index


def part_text(view, index, text):
    """A slice, or one number with those around it; `text` is the index as it was written."""
    part = view.part(index)
    if part.sizes:
        return "[%s] of Tensor%s is %s\n  %s\n%s" % (
            text, tuple_text(view.sizes), tuple_text(part.sizes), Statistics(part), matrix_text(part))
    text = "[%s] of Tensor%s is %.9g" % (text, tuple_text(view.sizes), part.values()[0])
    around = slice(max(0, index[-1] - 3), min(view.sizes[-1], index[-1] + 4), 1)
    rows = [[]] if len(index) == 1 else [
        [i] for i in range(max(0, index[-2] - 2), min(view.sizes[-2], index[-2] + 3))]
    for row in rows:
        mark = index[-1] - around.start if row == index[-2:-1] else None
        numbers = view.part(index[: len(index) - 1 - len(row)] + row + [around]).values()
        place = index[: len(index) - 1 - len(row)] + row
        text += "\n  [%s%d:%d] %s" % ("".join("%d, " % i for i in place), around.start, around.stop,
                                       row_text(numbers, mark))
    return text
