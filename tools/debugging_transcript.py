#!/usr/bin/env python3
"""Makes the output that docs/debugging.md shows again, or compares it.

    tools/debugging_transcript.py [BUILD] [--check]

A block after <!-- made by tools/debugging_transcript.py: NAME --> is what the function of that name returns. --check
writes nothing: a block that differs in more than numbers, which are other ones on other machines, is an error. BUILD is
a build folder with the program and the tests; without gdb, what it says is left as it is."""

import difflib
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
PAGE = os.path.join(ROOT, "docs", "debugging.md")
BLOCK = re.compile(r"(<!-- made by tools/debugging_transcript\.py: (\w+) -->\n```\n)(.*?)(^```\n)", re.M | re.S)
MODEL = "--layers 2 --heads 2 --dim 16 --context 16 --batch 4 --steps 400 --threads 1"
TEXT = "".join("%d times %d is %d.\n" % (a, b, a * b) for a in range(1, 40) for b in range(1, 40))
PLANTED = "build/tests/debug/rapt_planted"


class Maker:
    def __init__(self, build, folder):
        self.build, self.folder = build, folder
        with open(os.path.join(folder, "text.txt"), "w", encoding="utf-8") as file:
            file.write(TEXT)
        self.run("build/rapt train text.txt --out run --stop-at 10 " + MODEL, 130)
        self.diverge = "rapt train --resume run --lr 1e30 --schedule constant --clip 0"
        self.diverged = self.run("build/" + self.diverge, 4)

    def run(self, command, *codes):
        """What a command prints, with the build folder as `build`; it must end with one of the codes, 0 if none is given."""
        words = [w.replace("build/", self.build + "/", 1) if w.startswith("build/") else w for w in command.split()]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(words, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              check=False)
        out = re.sub(r"[^\s(]*\.\./", "", done.stdout.decode()).replace(self.build + "/", "build/")
        if done.returncode not in (codes or [0]):
            sys.exit("%s ended with exit code %d:\n%s" % (command, done.returncode, out))
        return out + ("Floating point exception\n" if done.returncode == -8 else "")

    def shown(self, command, *codes):
        """The same after its command."""
        return "$ %s\n%s" % (command, self.run(re.sub("^rapt ", "build/rapt ", command), *codes))

    def planted(self):
        if not shutil.which("gdb"):
            return None
        commands = os.path.join(ROOT, "tests/debug/planted.gdb")
        gdb = subprocess.run(
            ["gdb", "-nx", "-batch", "-iex", "add-auto-load-safe-path " + self.build, "-d", ROOT,
             "-ex", 'set $commands = "%s"' % commands, "-x", os.path.join(ROOT, "tools/gdb/transcript.py"),
             PLANTED.replace("build", self.build, 1)], env={**os.environ, "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"},
            cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True).stdout.decode()
        gdb = re.sub(r"step \d+: .*\n|[^\s(]*\.\./", "", gdb[gdb.index("(gdb)"):])
        return "%s$ gdb %s\n%s" % (self.shown(PLANTED, 0, 1), PLANTED, gdb)

    def planted_trap(self):
        text = self.shown(PLANTED, 0, 1) + self.shown(PLANTED + " --trap-nan", -8)
        command = re.search("addr2line .*", text).group()
        return text + "$ %s\n%s\n…\n" % (command, "\n".join(self.run(command).split("\n")[:2]))

    def planted_finite(self):
        out = self.run(PLANTED + " --check-finite", 0, 1)
        return "\n".join(line for line in out.split("\n") if not line.startswith("step "))

    def replay(self):
        step = "rapt replay run/step-00000012.safetensors"
        return self.shown(step + " --check-finite", 4) + self.shown(step + " --trap-nan", -8)

    def diverged_step(self):
        return "$ %s\n%s%s" % (self.diverge, self.diverged, self.shown("rapt replay run"))

    def profile(self):
        tables = self.shown("rapt replay run --profile").split("\n\n")
        head = [t.split("\n")[:n] for t, n in zip(tables[1:3], (5, 3))]
        return "$ rapt replay run --profile\n" + "".join("\n".join(lines) + "\n…\n" for lines in head)

    def diff_runs(self):
        for name, more in ("a", ""), ("b", " --mlp silu"):
            command = "build/rapt train text.txt --record-values %s%s --stop-at 1 --out of-%s %s"
            self.run(command % (name, more, name, MODEL), 130)
        return ("$ rapt train text.txt --steps 1 --record-values a …\n"
                "$ rapt train text.txt --steps 1 --record-values b --mlp silu …\n" + self.shown("rapt diff-runs a b", 1))


def rough(name, text):
    """Without what differs from machine to machine: numbers other than of lines and in names, and times."""
    if name == "profile":
        return ""
    text = re.sub(r"(?m)^(\$ addr2line .*\n).*\n.*\n", r"\1", text)
    text = re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{16}\b", "…", text)
    return re.sub(r"(?<![\w:./-])-?(\d+(\.\d+)?(e[-+]\d+)?|nan\b)", "#", text)


def main():
    arguments = [a for a in sys.argv[1:] if a != "--check"]
    check, failed = "--check" in sys.argv, False
    build = os.path.realpath(arguments[0] if arguments else os.path.join(ROOT, "build"))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open(PAGE, encoding="utf-8") as file:
        old = file.read()
    with tempfile.TemporaryDirectory() as folder:
        maker = Maker(build, folder)

        def fill(block):
            nonlocal failed
            new = getattr(maker, block[2])()
            if new is None:
                return block[0]
            if check and rough(block[2], new) != rough(block[2], block[3]):
                failed = True
                print("docs/debugging.md: %s is no longer what is printed; make it again with "
                      "tools/debugging_transcript.py" % block[2], file=sys.stderr)
                sys.stderr.writelines(difflib.unified_diff(block[3].splitlines(True), new.splitlines(True), "page", "now"))
            return block[1] + new + block[4]

        new = BLOCK.sub(fill, old)
    if not check and new != old:
        with open(PAGE, "w", encoding="utf-8") as file:
            file.write(new)
    sys.exit(failed)


if __name__ == "__main__":
    main()
