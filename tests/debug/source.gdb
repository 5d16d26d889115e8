# Not loaded by itself here
source -s tools/gdb/rapt.py
