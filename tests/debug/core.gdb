# What needs a process says so.
rapt step
rapt check loss
rapt watch x[0, 0]
rapt until nan
rapt keep on
rapt backward break
