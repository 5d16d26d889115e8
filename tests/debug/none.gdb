# A program without rapt, or without symbols: each command says so, and gdb goes on.
rapt print x
rapt node
rapt where
rapt grads
rapt graph x.svg
rapt check
rapt keep on
rapt backward break
rapt step
rapt until nan
rapt watch x[0]
print $parameter("x")
print 1 + 1
