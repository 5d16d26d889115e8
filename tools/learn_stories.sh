#!/bin/sh
# Trains the default model with one kind of attention on the built-in stories, on one thread, and says whether it came to
# within 10 % of their entropy. One that doesn't in 2000 steps gets 4000, then 8000 at a lower rate, which attention without
# norms of queries and keys needs with Muon. Exit code 1 when that was not enough either.
# usage: tools/learn_stories.sh RAPT FOLDER SPEC    (FOLDER gets a folder for the run)
set -eu
rapt=$1 spec=$3
out=$2/$(printf %s "$spec" | tr -c 'a-z0-9\n' _)
for how in "--steps 2000" "--steps 4000 --lr 0.02" "--steps 8000 --lr 0.02"; do
  rm -rf "$out"
  mkdir -p "$out"
  began=$(date +%s)
  "$rapt" train --attention "$spec" $how --eval-every 0 --threads 1 --out "$out" > "$out/output.txt" 2>&1 || :
  line=$("$rapt" eval "$out" --threads 1 2> /dev/null | tr '\n' ' ') || line=
  if printf '%s %s\n' "$spec" "$line" | awk -v how="$how" -v seconds=$(($(date +%s) - began)) '{
    for (i = 1; i <= NF; ++i) { if ($i == "loss") loss = $(i + 1) + 0; if ($i == "best") best = $(i + 1) + 0 }
    ok = loss > 0 && loss <= 1.1 * best
    printf "%-40s %s, %d s: loss %.4f, at best %.4f: %s\n", $1, how, seconds, loss, best, ok ? "ok" : "TOO HIGH"
    exit !ok }'; then exit 0; fi
done
exit 1
