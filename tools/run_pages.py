#!/usr/bin/env python3
"""Runs the C++ of the pages that show programs with their output, and writes or compares the output.

    tools/run_pages.py BUILD [--write] [PAGE...]

A page is one program: its ```cpp blocks one after the other. Those that begin a type or a function stand before main,
the others in it. A ``` block right after one is what it prints. Without --write, output that differs is an error.
BUILD is a build folder with librapt.a. CXX names the compiler.
"""
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGES = ["docs/tutorial/1-tensors.md", "docs/tutorial/2-gradients.md", "docs/tutorial/3-modules.md",
         "docs/tutorial/4-attention.md", "docs/tutorial/5-training.md", "docs/from-pytorch.md", "docs/inside.md"]
BLOCK = re.compile(r"^```cpp\n(.*?)^```\n(?:\n```\n(.*?)^```\n)?", re.M | re.S)
BEFORE_MAIN = re.compile(r"(?://[^\n]*\n)*(?:struct |template|inline |[\w:<>&*]+ \w+\([^;]*\) \{)")
MARK = "\x01"


def program(page, text):
    """The source; every block begins with a line of output of its own."""
    top, body = [], []
    for i, block in enumerate(BLOCK.finditer(text)):
        line = text.count("\n", 0, block.start(1)) + 1
        code = f'#line {line} "{page}"\n{block[1]}'
        if BEFORE_MAIN.match(block[1]):
            top.append(code)
            code = ""
        body.append(f'fmt::print("{MARK}");\n{code}')
    return ("#include <rapt/rapt.h>\nusing namespace rapt;\n" + "".join(top) + "int main() {\n" + "".join(body) + "}\n")


def onednn(build):
    """The library that large products go to, where the build found it."""
    with open(f"{build}/CMakeCache.txt", encoding="utf-8") as cache:
        found = re.search(r"^ONEDNN_LIBRARY:FILEPATH=(.*)$", cache.read(), re.M)
    return [found.group(1)] if found and "NOTFOUND" not in found.group(1) else []


def output(build, page, text):
    with tempfile.TemporaryDirectory() as folder:
        source, binary = folder + "/page.cpp", folder + "/page"
        with open(source, "w", encoding="utf-8") as file:
            file.write(program(os.path.basename(page), text))
        subprocess.run([os.environ.get("CXX", "g++"), "-std=gnu++20", "-O1", "-march=native", "-Wno-unused",
                        f"-I{build}/include", source, f"{build}/librapt.a", "-lfmt", "-lopenblas", "-fopenmp",
                        *onednn(build), "-o", binary], check=True)
        run = subprocess.run([binary], cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return run.stdout.split(MARK)[1:]


def with_output(text, printed):
    printed = iter(printed)

    def fill(block):
        out = next(printed)
        code = f"```cpp\n{block[1]}```\n"
        return code + (f"\n```\n{out}```\n" if out else "")

    return BLOCK.sub(fill, text)


def main():
    arguments = [a for a in sys.argv[1:] if a != "--write"]
    if not arguments:
        sys.exit(__doc__)
    build, failed = os.path.abspath(arguments[0]), False
    for page in arguments[1:] or PAGES:
        path = os.path.join(ROOT, page)
        with open(path, encoding="utf-8") as file:
            text = old = file.read()
        if "```cpp" not in text:
            continue
        new = with_output(text, output(build, page, text))
        if "--write" in sys.argv and new != old:
            # errors name lines, which have moved
            new = with_output(new, output(build, page, new))
            with open(path, "w", encoding="utf-8") as file:
                file.write(new)
        elif new != old:
            failed = True
            for a, b in zip(old.splitlines(), new.splitlines()):
                if a != b:
                    print(f"{page}: says\n  {a}\nbut the program prints\n  {b}", file=sys.stderr)
                    break
    sys.exit(failed)


if __name__ == "__main__":
    main()
