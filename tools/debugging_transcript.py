#!/usr/bin/env python3
"""Makes the transcript in docs/debugging.md again: runs tests/debug/planted.cpp alone and under gdb.

usage: tools/debugging_transcript.py [BUILD_FOLDER]     (after a build with the tests; needs gdb)"""

import os
import re
import subprocess
import sys

root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
build = os.path.realpath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(root, "build"))
program = os.path.join(build, "tests", "debug", "rapt_planted")
page = os.path.join(root, "docs", "debugging.md")
environment = dict(os.environ, OMP_NUM_THREADS="1", LC_ALL="C.UTF-8")


def output(*command):
    done = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return re.sub(r"(\.\./)+", "", done.stdout.decode())


alone = output(program)
gdb = output("gdb", "-nx", "-batch", "-iex", "add-auto-load-safe-path " + build, "-d", root,
             "-ex", 'set $commands = "tests/debug/planted.gdb"', "-x", "tools/gdb/transcript.py", program)
gdb = re.sub(r"step \d+: .*\n", "", gdb[gdb.index("(gdb)"):])
text = "$ build/tests/debug/rapt_planted\n%s$ gdb build/tests/debug/rapt_planted\n%s" % (alone, gdb)

with open(page, encoding="utf-8") as file:
    old = file.read()
begin, end = "<!-- made by tools/debugging_transcript.py -->\n```\n", "```\n<!-- end -->"
before, rest = old.split(begin, 1)
with open(page, "w", encoding="utf-8") as file:
    file.write(before + begin + text + end + rest.split(end, 1)[1])
