#!/usr/bin/env python3
"""From a raw text (tiny Shakespeare) to the loss where nanoGPT's recipe for a CPU ends: 1.898 nats per character over
the whole validation split. rapt's defaults, and as many steps as that takes.

usage: speedrun.py RAPT TEXT FOLDER
"""
import json
import shutil
import subprocess
import sys
import time

GOAL, STEPS = 1.898, 260


def main():
    rapt, text, folder = sys.argv[1:4]
    losses, times = [], []
    for seed in (1, 2, 3):
        shutil.rmtree(folder, ignore_errors=True)
        begin = time.perf_counter()
        subprocess.run([rapt, "train", text, "--steps", str(STEPS), "--eval-every", "0", "--seed", str(seed), "--out", folder],
                       check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begin)
        answer = subprocess.run([rapt, "eval", folder, "--json"], check=True, capture_output=True, text=True).stdout
        losses.append(json.loads(answer)["loss"])
        print(f"seed {seed}: {times[-1]:.1f} s, validation loss {losses[-1]:.4f}", flush=True)
    mean = sum(losses) / len(losses)
    print(f"{sorted(times)[1]:.1f} s from text to model (median of three, reading, validation and a sample included); "
          f"loss {mean:.4f}, nanoGPT's recipe ends at {GOAL}")
    return mean > GOAL


if __name__ == "__main__":
    sys.exit(main())
