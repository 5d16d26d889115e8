# Before the program runs
rapt step
rapt check
rapt watch x[0]
rapt backward break op=softmax
rapt backward break color=red
rapt backward break nth=0
rapt until
rapt until norm>many
break look_here
run
frame function main
rapt print y.node._M_ptr->kept[0]
# Into the backward pass: where, what, and one node
continue
rapt node
rapt print
rapt print [0]
rapt print y[0, 1]
rapt where
rapt check
rapt step
rapt check
rapt step
rapt graph steps.dot
rapt until op=linear
rapt until parameter=head.slope
rapt step
rapt grads --top 2
continue
frame function main
# Released: what y was made from is gone
rapt node y
rapt check y
print handle
# A number that is written to
delete
rapt watch x[1, 2]
rapt watch x[1]
continue
delete
rapt backward break module=head nth=2
continue
delete
rapt until op=crooked
rapt check
rapt until norm>1
rapt until inf
rapt until nan
rapt step
rapt step
