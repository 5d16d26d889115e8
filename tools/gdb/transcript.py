"""Runs the commands of the file $commands in gdb and prints them with what they say, as a terminal would show it:
gdb -nx -batch -ex 'set $commands = "FILE"' -x transcript.py PROGRAM"""

import gdb

for setting in ("pagination off", "width 0", "confirm off", "print thread-events off", "print inferior-events off",
                "print address off", "debuginfod enabled off", "disable-randomization on", "style enabled off"):
    try:
        gdb.execute("set " + setting, to_string=True)
    except gdb.error:
        pass  # unknown to this gdb

with open(gdb.convenience_variable("commands").string(), encoding="utf-8") as lines:
    for line in lines.read().splitlines():
        if not line or line.startswith("#"):
            continue
        gdb.write("(gdb) %s\n" % line)
        gdb.flush()
        try:
            gdb.execute(line)
        except gdb.error as error:
            gdb.write("%s\n" % error)
        gdb.flush()
