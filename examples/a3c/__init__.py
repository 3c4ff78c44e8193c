"""What train_a3c.py needs beside its two algorithms, one subject a file.

cartpole  the network, the environments that it plays in, the loss, and the evaluation
workers   processes that are started, watched and ended together
by_hand   RMSProp as A3C's reproductions write it, and what a step of it takes beside FusedRMSProp's
course    episodes and evaluations of an algorithm, and whether it is done
results   the curves, tables and figures that a run leaves behind
options   the command line
"""
