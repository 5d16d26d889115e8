break look_here
run

