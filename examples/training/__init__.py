"""What a run of train_gpt.py needs beside its training loop, one subject a file.

launch            from the command line to a Run: processes, the folder's lock, errors as messages
options, job      the command line's options; the job they ask for
settings          what each setting may be
run               steps, metrics and checkpoints of a run
learner           a model with its optimizer and schedule, as a checkpoint keeps it
parallel          several processes: DistributedDataParallel and fully_shard
checkpoint        saving and loading; checkpoint_files, checksums and run_json: its files
resume            which checkpoint a run goes on from
folder, signals   where a run writes; what Ctrl-C does
progress, report  progress bars; tables, plots and metrics.csv
stopwatch         the time of a step, and of the optimizer in it
"""
