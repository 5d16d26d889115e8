"""rapt in gdb: printers for tensors, shapes, nodes, modules and attention options, and the commands `rapt …` that go
through a backward pass node by node; docs/debugging.md shows them. Loaded by itself where gdb trusts the program's folder
(add-auto-load-safe-path), else with `source`."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import rapt_gdb  # noqa: E402,F401
import rapt_print  # noqa: E402,F401
import rapt_steps  # noqa: E402,F401
