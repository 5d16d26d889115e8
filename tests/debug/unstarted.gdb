# Before the program runs
rapt step
rapt check
rapt watch x[0]
rapt backward break color=red
rapt backward break nth=0
rapt until
rapt until norm>many
