"""Runs the commands of the files that $commands lists in gdb and prints them with what they say, as a terminal would show it:
gdb -nx -batch -ex 'set $commands = "FILE"' -x transcript.py PROGRAM"""

import gdb

for setting in ("pagination off", "width 0", "confirm off", "print thread-events off", "print inferior-events off",
                "print address off", "debuginfod enabled off", "disable-randomization on", "style enabled off"):
    try:
        gdb.execute("set " + setting, to_string=True)
    except gdb.error:
        pass  # unknown to this gdb

for file in gdb.convenience_variable("commands").string().split():
    with open(file, encoding="utf-8") as lines:
        commands = [line for line in lines.read().splitlines() if line and not line.startswith("#")]
    for command in commands:
        gdb.write("(gdb) %s\n" % command)
        gdb.flush()
        try:
            gdb.execute(command)
        except gdb.error as error:
            gdb.write("%s\n" % error)
        gdb.flush()
