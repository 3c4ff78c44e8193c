"""What each rank of test_distributed.py runs, in a process of its own."""
