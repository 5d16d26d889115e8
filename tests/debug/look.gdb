# On a live process and on its core file, stopped in look_here before the first backward.
frame function main
print nothing
print one
print row
print cube
print turned
print broken
print shape
print x.strides
print several
print options
print plain
print net
print net.head.up
print handle
print expired
print *loss.node._M_ptr
rapt print cube[1, :, 2]
rapt print turned[-1, 1]
rapt print turned[3, 2, 1]
rapt print wide[10, 15]
rapt print row[1:4]
rapt print several[1][2]
rapt print $parameter("head.up.weight")[2, 1:3]
rapt node loss
rapt node attended
rapt where y
rapt grads
# Bad input
rapt print row[7]
rapt print cube[0, 0, 0, 0]
rapt print row[broken]
rapt print row[::2]
rapt print nothing[0]
rapt print shape
rapt print several[5]
rapt print no_such_tensor
rapt print row[
rapt node row
rapt node expired
rapt node expired.node
rapt node step
rapt node
rapt where
rapt grads --all
rapt graph
rapt
rapt nonsense
rapt backward nonsense
print $parameter("head.down")
