# From the program's start on: before, it does not know what is in its shared library
break start_here
run
delete
rapt backward break op=softmax
break look_here
continue
delete 3
frame function main
rapt print y.node._M_ptr->kept[0]
# Into the backward pass: where, what, and one node
continue
rapt node
rapt print
rapt print [0, :]
rapt print [0, 3]
rapt print y
rapt where
rapt check
# There is an `one` in the libraries, too
rapt print one
rapt step junk
# Another node takes the memory
set $saved = $node
set var $node->sequence += 1000
rapt node $node
rapt where *$saved
rapt print $saved->kept[0]
set var $node->sequence -= 1000
rapt print $saved->kept[0][0, 0]
rapt step
rapt check
rapt until op=linear
rapt graph steps.dot
python import rapt_print; rapt_print.MOST_NODES = 2
rapt graph steps.dot
python rapt_print.MOST_NODES = 5000
python import os; os.environ["PATH"] = ""
rapt graph steps.svg
rapt graph no/such/folder/steps.svg
rapt until parameter=head.slopes
rapt until parameter=head.slope
rapt step
rapt grads --top 2
delete
# The next pass: a wrong backward, and a norm
rapt until op=crooked
rapt check
rapt until norm>30
# Afterwards: what was saved is freed, and the node of the first step is gone
break look_here
continue
frame function main
rapt node y
rapt check y
rapt print y.node._M_ptr->gradient
print handle
# A number that is written to
rapt watch x[1]
rapt watch x[1, 2]
continue
delete
# The third pass starts from infinity
rapt backward break module=head nth=2
continue
delete
rapt until nan
rapt step
rapt until module=head.down
rapt step
