# A core file from within a backward pass
rapt backward break op=softmax
run
generate-core-file within.core
