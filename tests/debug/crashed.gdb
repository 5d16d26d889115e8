rapt node
rapt where
rapt print
rapt print [1, :]
rapt print loss
rapt grads
rapt graph crashed.dot
rapt check
rapt step
