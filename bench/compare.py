#!/usr/bin/env python3
"""Times rapt's work (rapt_work, see bench/work.h), and the same in PyTorch, alternately.

usage: compare.py RAPT_WORK [--peers PYTHON] [--text FILE --rapt PROGRAM] [--only TEXT] [--rounds N] [--json FILE]
                  [--write docs/performance.md]

All programs of a row are started, and then take turns of about half a second (A B C A B C …), so that whatever else
the machine does meets them all. Of each the least time and the median count. --text adds nanoGPT's recipe from start
to end. --write replaces what stands between the marks in that file.
"""
import argparse
import datetime
import json
import math
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TORCH = os.path.join(HERE, "peers", "torch_work.py")
EAGER, COMPILED = "eager", "compile"
STEP = {EAGER: [], COMPILED: ["--compile"]}
ONE = {EAGER: []}
LAYER = {"attention in one": [], "nn.MultiheadAttention": ["--module"], "list of heads": ["--wrapper"]}
# name, arguments, the peers' options
ROWS = [
    ("step, 4 layers, dim 128, context 64, batch 12, vocabulary 65", "step 4 4 128 64 12 65", STEP),
    ("step, 6 layers, dim 384, context 256, batch 8, vocabulary 65", "step 6 6 384 256 8 65", STEP),
    ("step, GPT-2 124M, context 64, batch 4, vocabulary 50304", "step 12 12 768 64 4 50304", STEP),
    ("causal attention (12, 4, 64, 32)", "attention 12 4 64 32", ONE),
    ("causal attention (8, 6, 256, 64)", "attention 8 6 256 64", ONE),
    ("causal attention (1, 12, 1024, 64)", "attention 1 12 1024 64", ONE),
    ("causal attention (1, 12, 4096, 64)", "attention 1 12 4096 64", ONE),
    ("layer of attention, batch 8, length 1024, dim 768, 12 heads", "layer 8 1024 768 12", LAYER),
]
VARIANTS = ["alibi", "t5", "softcap", "dropout", "window"]  # against rapt's own plain causal attention
GROWTH = [  # rapt alone: what doubling does
    ("step, as the first row", "step 4 4 128 64 12 65"),
    ("… twice the layers", "step 8 4 128 64 12 65"),
    ("… twice the batch", "step 4 4 128 64 24 65"),
    ("… twice the context", "step 4 4 128 128 12 65"),
    ("… twice the vocabulary", "step 4 4 128 64 12 130"),
]


class Worker:
    """A program that repeats its work when it reads a number."""

    def __init__(self, command):
        self.command = command
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = self.read()
        self.least, self.medians, self.peak = {}, {}, 0.0

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"compare: failed: {' '.join(self.command)}")
        return json.loads(line)

    def ask(self, n):
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        answer = self.read()
        self.peak = answer.pop("peak")
        return answer

    def turn(self, n):
        for part, (least, median) in self.ask(n).items():
            self.least[part] = min(least, self.least.get(part, least))
            self.medians.setdefault(part, []).append(median)

    def median(self, part):
        return sorted(self.medians[part])[len(self.medians[part]) // 2]

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def take_turns(workers, rounds, seconds=0.5):
    counts = []
    for w in workers:
        w.ask(1)
        once = max(t for t, _ in w.ask(1).values())
        counts.append(max(1, min(200, int(seconds / once))))
    for _ in range(rounds):
        for w, n in zip(workers, counts):
            w.turn(n)
    for w in workers:
        w.end()


def ms(seconds):
    return f"{seconds * 1e3:.2f}" if seconds < 0.01 else f"{seconds * 1e3:.1f}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"


def table(head, rows):
    if not rows:
        return ""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in rows]) + "\n"


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        return re.search(r"model name\s*: (.*)", f.read()).group(1)


LENGTHS = [1024, 2048, 4096, 8192, 16384, 32768, 65536]


def memory_plot(arguments, results):
    """Peak memory of causal attention, forward and backward, against the length: a picture beside --write's file."""
    points = []
    for length in LENGTHS:
        w = Worker([arguments.rapt_work, *f"attention 1 1 {length} 64".split()])
        w.turn(1)
        w.end()
        points.append((length, w.peak))
        print(f"length {length}: {w.peak:.0f} MB", flush=True)
    results["memory"] = dict(points)
    head = ["length, 1 head of 64", *[str(t) for t, _ in points]]
    rows = [["peak memory of the process, MB", *[f"{m:.0f}" for _, m in points]]]
    if not arguments.write:
        return table(head, rows)
    width, height, left, bottom = 560, 320, 60, 40
    x = lambda t: left + (math.log2(t) - 10) / 6 * (width - left - 20)
    top = math.ceil(math.log2(points[-1][1]))
    y = lambda m: height - bottom - (math.log2(m) - 3) / (top - 3) * (height - bottom - 20)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
             f'<rect width="{width}" height="{height}" fill="white"/>']
    for t in LENGTHS:
        parts.append(f'<path d="M{x(t):.1f} 20V{height - bottom}" stroke="#ddd"/>'
                     f'<text x="{x(t):.1f}" y="{height - bottom + 15}" text-anchor="middle">{t}</text>')
    for e in range(3, top + 1):
        parts.append(f'<path d="M{left} {y(2 ** e):.1f}H{width - 20}" stroke="#ddd"/>'
                     f'<text x="{left - 6}" y="{y(2 ** e) + 4:.1f}" text-anchor="end">{2 ** e} MB</text>')
    whole = [(t, 2 * 4e-6 * t * t) for t in LENGTHS if 2 * 4e-6 * t * t < 2 ** top]  # scores and their gradients
    for series, colour in ((points, "#06c"), (whole, "#c60")):
        path = "L".join(f"{x(t):.1f} {y(max(m, 8)):.1f}" for t, m in series)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    parts.append(f'<text x="{x(16384):.1f}" y="{y(points[4][1]) - 12:.1f}" fill="#06c" text-anchor="end">rapt, measured</text>'
                 f'<text x="{left + 10}" y="36" fill="#c60">what two whole matrices of scores would take</text>'
                 f'<text x="{width / 2}" y="{height - 8}" text-anchor="middle">length</text></svg>')
    with open(os.path.join(os.path.dirname(arguments.write), "memory.svg"), "w", encoding="utf-8") as f:
        f.write("\n".join(parts) + "\n")
    return table(head, rows) + "\n![peak memory against length](memory.svg)\n"


RECIPE = ("--layers 4 --heads 4 --dim 128 --context 64 --batch 12 --steps 2000 --optimizer adamw --lr 1e-3 --min-lr 1e-4 "
          "--warmup 100 --schedule cosine --beta2 0.99 --weight-decay 0.1 --clip 1 --eval-every 0 --sample-every 0")


def in_turns(commands, turn=2.0):
    """Whole programs, of which one at a time runs for two seconds while the others are stopped, until all have ended. Of
    each its output, the seconds that it ran, and its peak memory in MB."""
    processes, results, seconds = [], [None] * len(commands), [0.0] * len(commands)
    try:
        for command in commands:
            output = tempfile.TemporaryFile("w+")
            processes.append((subprocess.Popen(command, stdout=output), output))
            processes[-1][0].send_signal(signal.SIGSTOP)
        while None in results:
            for i in [i for i, result in enumerate(results) if not result]:
                process, output = processes[i]
                began, ended = time.perf_counter(), 0
                process.send_signal(signal.SIGCONT)
                while not ended and time.perf_counter() - began < turn:
                    time.sleep(0.005)
                    ended, status, usage = os.wait4(process.pid, os.WNOHANG)
                seconds[i] += time.perf_counter() - began
                if not ended:
                    process.send_signal(signal.SIGSTOP)
                    continue
                process.returncode = status
                if status != 0:
                    raise SystemExit(f"compare: failed: {' '.join(commands[i])}")
                output.seek(0)
                results[i] = output.read(), seconds[i], usage.ru_maxrss * 1024e-6
    finally:
        for process, _ in processes:  # none stays behind, stopped for ever
            process.kill()
    return results


def recipe(arguments, results):
    """nanoGPT's recipe from start to end, in rapt, in rapt as `rapt train` would have it, and in the peer."""
    folder = os.path.join(os.path.dirname(os.path.abspath(arguments.rapt_work)), "recipe")
    kinds = {"rapt": "--attention mha --position learned", "rapt, its own attention and positions": ""}
    runs = {}
    for seed in range(1, arguments.seeds + 1):
        subprocess.run(["rm", "-rf", folder], check=True)
        commands = {name: [arguments.rapt, "train", arguments.text, *RECIPE.split(), *attention.split(), "--seed",
                           str(seed), "--out", os.path.join(folder, str(i))]
                    for i, (name, attention) in enumerate(kinds.items())}
        if arguments.peers:
            commands["PyTorch"] = [arguments.peers, os.path.join(HERE, "peers", "torch_recipe.py"), arguments.text, "2000",
                                   str(seed)]
        for i, (name, (output, seconds, peak)) in enumerate(zip(commands, in_turns(list(commands.values())))):
            if name in kinds:
                output = subprocess.run([arguments.rapt, "eval", os.path.join(folder, str(i)), "--json"], check=True,
                                        capture_output=True, text=True).stdout
            runs.setdefault(name, []).append((seconds, peak, json.loads(output)["loss"]))
        print(f"recipe, seed {seed}: " + "; ".join(f"{name} {r[-1]}" for name, r in runs.items()), flush=True)
    results["recipe"] = runs
    rows = [[name, f"{min(r)[0]:.1f} s", f"{max(p for _, p, _ in r):.0f} MB",
             f"{sum(loss for *_, loss in r) / len(r):.4f}", " ".join(f"{loss:.4f}" for *_, loss in r)]
            for name, r in runs.items()]
    if "PyTorch" in runs:
        mine, peer = runs["rapt"], runs["PyTorch"]
        rows.append(["ratio of the first to PyTorch", f"**{min(mine)[0] / min(peer)[0]:.2f}**",
                     f"{max(p for _, p, _ in mine) / max(p for _, p, _ in peer):.2f}", "", ""])
    return table(["nanoGPT's recipe for a CPU, start to end, by turns", "least time", "peak memory",
                  "mean validation loss", "of seeds 1, 2 …"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rapt_work")
    parser.add_argument("--peers", metavar="PYTHON", help="a Python that has PyTorch")
    parser.add_argument("--text", help="adds nanoGPT's recipe on this text (tiny Shakespeare)")
    parser.add_argument("--rapt", metavar="PROGRAM", help="the program, for --text")
    parser.add_argument("--only", default="", help="rows whose name or arguments contain this")
    parser.add_argument("--seeds", type=int, default=1, help="of the recipe")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--write", metavar="FILE")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    results, sections = {}, []

    def wanted(*names):
        return any(arguments.only in n for n in names)

    def say(text):
        sections.append(text)
        print(text, flush=True)

    if arguments.text and wanted("recipe"):
        say(recipe(arguments, results))

    machine = Worker([arguments.rapt_work, "machine"])
    take_turns([machine], 3)
    peak = machine.facts["operations"] / machine.least["multiply-add"]
    stream = machine.facts["bytes"] / machine.least["read"]
    triad = 3 * machine.facts["bytes"] / machine.least["triad"]
    results["machine"] = {"processor": processor(), "threads": int(os.environ["OMP_NUM_THREADS"]),
                          "peak_gflops": peak * 1e-9, "read_gb_per_s": stream * 1e-9,
                          "triad_gb_per_s": triad * 1e-9, "blas": machine.facts["blas"]}
    compiler = subprocess.run(["c++", "--version"], capture_output=True, text=True).stdout.split("\n")[0]
    command = ["./run bench peers", *sys.argv[sys.argv.index("--write") + 2 :]] if arguments.write else sys.argv
    say(f"`{' '.join(os.path.basename(word) for word in command)}`\n")
    say(f"{processor()}, {os.environ['OMP_NUM_THREADS']} threads; {platform.freedesktop_os_release()['PRETTY_NAME']}; "
        f"{compiler}; "
        f"{machine.facts['blas']}; fused multiply-adds at most {peak * 1e-9:.0f} GF/s, memory read at {stream * 1e-9:.1f} GB/s, STREAM's triad {triad * 1e-9:.1f} GB/s; "
        f"{datetime.date.today()}.\n")

    rows, versions = [], set()
    for name, words, peers in ROWS:
        if not wanted(name, words):
            continue
        workers = {"rapt": Worker([arguments.rapt_work, *words.split()])}
        for label, options in peers.items() if arguments.peers else ():
            workers[label] = Worker([arguments.peers, TORCH, *options, *words.split()])
            versions.add(workers[label].facts["version"])
        take_turns(list(workers.values()), arguments.rounds)
        mine = workers.pop("rapt")
        result = {"rapt": {"least": mine.least, "peak": mine.peak}}
        for part, least in sorted(mine.least.items(), key=lambda item: item[0] == "backward"):  # forward first
            line = [name if part in ("step", "forward") else "", part, f"{ms(least)} / {ms(mine.median(part))}"]
            if workers:
                best = min(workers.values(), key=lambda w: w.least[part])
                label = next(k for k, w in workers.items() if w is best) if len(workers) > 1 else ""
                line += [f"{ms(best.least[part])} / {ms(best.median(part))}" + (f" ({label})" if label else ""),
                         f"**{least / best.least[part]:.2f}** / {mine.median(part) / best.median(part):.2f}",
                         f"{mine.peak:.0f} / {best.peak:.0f}"]
                for k, w in workers.items():
                    result[k] = {"least": w.least, "peak": w.peak}
            else:
                line += [f"{mine.peak:.0f}"]
            # A part of an attention is two sevenths or five sevenths of the operations.
            operations = mine.facts["operations"] * {"forward": 2 / 7, "backward": 5 / 7}.get(part, 1)
            if words.startswith("layer") and part == "forward":
                operations = mine.facts["operations"] / 3
            line += [f"{operations / least * 1e-9:.0f} ({100 * operations / least / peak:.0f} %)"]
            if part == "step":
                line[1] += f", {int(words.split()[4]) * int(words.split()[5]) / least / 1e3:.1f}k tokens/s"
            rows.append(line)
        results[words] = result
        print(" | ".join(rows[-1]), flush=True)
    peer_head = ["PyTorch, ms", "ratio", "MB, rapt / PyTorch"] if arguments.peers else ["MB"]
    say(("Versions: " + ", ".join(sorted(versions)) + ". " if versions else "") +
        "Times are the least / the median; the ratio is rapt's time to the best of PyTorch's.\n")
    say(table(["work", "part", "rapt, ms", *peer_head, "GF/s (of the peak)"], rows))

    if wanted("variant"):
        shape = "attention 1 12 4096 64"
        workers = {v: Worker([arguments.rapt_work, *shape.split(), v]) for v in ["plain", *VARIANTS]}
        take_turns(list(workers.values()), arguments.rounds)
        plain = workers["plain"]
        rows = [[v] + [f"{ms(w.least[p])} ({w.least[p] / plain.least[p]:.2f})" for p in ("forward", "backward")]
                for v, w in workers.items()]
        results["variants"] = {v: w.least for v, w in workers.items()}
        say(table(["variant of causal attention (1, 12, 4096, 64)", "forward, ms (to plain)", "backward"], rows))
    if wanted("growth"):
        workers = [Worker([arguments.rapt_work, *words.split()]) for _, words in GROWTH]
        take_turns(workers, arguments.rounds)
        rows = [[name, ms(w.least["step"]), f"{w.least['step'] / workers[0].least['step']:.2f}", f"{w.peak:.0f}"]
                for (name, _), w in zip(GROWTH, workers)]
        results["growth"] = {name: w.least["step"] for (name, _), w in zip(GROWTH, workers)}
        say(table(["growth", "ms", "times the first", "MB"], rows))
    if wanted("memory"):
        say(memory_plot(arguments, results))
    if wanted("decode"):
        # Beside it the memory again: its speed changes with what else the machine does.
        w, memory = Worker([arguments.rapt_work, *"decode 12 12 768 1024 50304".split()]), Worker([arguments.rapt_work, "machine"])
        take_turns([w, memory], arguments.rounds)
        stream = memory.facts["bytes"] / memory.least["read"]
        triad = 3 * memory.facts["bytes"] / memory.least["triad"]
        token = w.least["token"]
        shares = [w.facts["bytes"] / speed / token for speed in (triad, stream)]
        results["decode"] = {"token": token, "of_triad": shares[0], "of_read": shares[1]}
        say(table(["sampling with the cache, GPT-2 124M", "ms a token", "GB/s of weights", "of the triad's", "of reading alone"],
                  [["one sequence, 512 positions in the cache", ms(token), f"{w.facts['bytes'] / token * 1e-9:.1f}",
                    f"{100 * shares[0]:.0f} %", f"{100 * shares[1]:.0f} %"]]))

    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as f:
            json.dump(results, f, indent=1)
    if arguments.write:
        with open(arguments.write, encoding="utf-8") as f:
            text = f.read()
        begin, end = "<!-- measured -->\n", "<!-- end of measured -->"
        if begin not in text or end not in text:
            raise SystemExit(f"compare: {arguments.write} has no marks '{begin.strip()}' and '{end}'")
        before, rest = text.split(begin, 1)
        with open(arguments.write, "w", encoding="utf-8") as f:
            f.write(before + begin + "\n" + "\n".join(sections) + "\n" + end + rest.split(end, 1)[1])


if __name__ == "__main__":
    sys.exit(main())
