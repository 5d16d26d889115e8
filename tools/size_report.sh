#!/bin/sh
# What using rapt costs: seconds to compile a file that includes <rapt/rapt.h> at -O0, and the size of the static
# library as it is built, with debug information, and without. Prints two lines. usage: tools/size_report.sh [BUILD FOLDER]
set -eu
build=${1:-$(dirname -- "$0")/../build}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

printf '#include <rapt/rapt.h>\nint main() { return rapt::ones({1}).item() == 1 ? 0 : 1; }\n' > "$work/user.cpp"
best=
for _ in 1 2 3; do # the fastest: others may be at work
  began=$(date +%s%N)
  ${CXX:-c++} -std=c++20 -O0 -I "$build/include" -c "$work/user.cpp" -o "$work/user.o"
  took=$((($(date +%s%N) - began) / 10000000))
  if [ -z "$best" ] || [ "$took" -lt "$best" ]; then best=$took; fi
done
printf 'a file that includes <rapt/rapt.h>, -O0: %d.%02d s (below 2 s is wanted)\n' $((best / 100)) $((best % 100))

cp "$build/librapt.a" "$work/librapt.a"
whole=$(($(wc -c < "$work/librapt.a") / 100000))
strip --strip-debug "$work/librapt.a"
size=$(($(wc -c < "$work/librapt.a") / 100000))
printf 'the static library: %d.%d MB, %d.%d MB without debug information (below 10 MB is wanted)\n' \
  $((whole / 10)) $((whole % 10)) $((size / 10)) $((size % 10))
