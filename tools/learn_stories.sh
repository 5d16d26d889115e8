#!/bin/sh
# Trains the default model with one kind of attention on the built-in stories, on one thread, and says whether it came to
# within 10 % of their entropy. One that doesn't in 2000 steps gets 6000. Exit code 1 when that was not enough either.
# usage: tools/learn_stories.sh RAPT FOLDER SPEC    (FOLDER gets a folder for the run)
set -eu
rapt=$1 spec=$3
out=$2/$(printf %s "$spec" | tr -c 'a-z0-9\n' _)
for steps in 2000 6000; do
  rm -rf "$out"
  mkdir -p "$out"
  began=$(date +%s)
  "$rapt" train --attention "$spec" --steps $steps --eval-every 0 --threads 1 --out "$out" > "$out/output.txt" 2>&1 || :
  line=$("$rapt" eval "$out" --threads 1 2> /dev/null | tr '\n' ' ') || line=
  if printf '%s %s\n' "$spec" "$line" | awk -v steps=$steps -v seconds=$(($(date +%s) - began)) '{
    for (i = 1; i <= NF; ++i) { if ($i == "loss") loss = $(i + 1) + 0; if ($i == "best") best = $(i + 1) + 0 }
    ok = loss > 0 && loss <= 1.1 * best
    printf "%-40s %d steps, %d s: loss %.4f, at best %.4f: %s\n", $1, steps, seconds, loss, best, ok ? "ok" : "TOO HIGH"
    exit !ok }'; then exit 0; fi
done
exit 1
