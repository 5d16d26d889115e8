#!/bin/sh
# Trains the default model with one kind of attention on the built-in stories, on one thread, and says whether it came to
# within 10 % of their entropy. Exit code 1 when it did not.
# usage: tools/learn_stories.sh RAPT FOLDER SPEC    (FOLDER gets a folder for the run)
set -eu
rapt=$1 spec=$3
out=$2/$(printf %s "$spec" | tr -c 'a-z0-9\n' _)
mkdir -p "$out"
began=$(date +%s)
"$rapt" train --attention "$spec" --eval-every 0 --threads 1 --out "$out" > "$out/output.txt" 2>&1 || :
line=$("$rapt" eval "$out" --threads 1 2> /dev/null | tr '\n' ' ') || line=
printf '%s %s\n' "$spec" "$line" | awk -v seconds=$(($(date +%s) - began)) '{
  for (i = 1; i <= NF; ++i) { if ($i == "loss") loss = $(i + 1) + 0; if ($i == "best") best = $(i + 1) + 0 }
  ok = loss > 0 && loss <= 1.1 * best
  printf "%-40s loss %.4f, at best %.4f, after %d s: %s\n", $1, loss, best, seconds, ok ? "ok" : "TOO HIGH"
  exit !ok }'
