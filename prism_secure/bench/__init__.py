"""What the parts cost, measured here and now, beside what one would take instead and what the machine can do.

Both sides run in turn in one process on one thread, in seconds of the processor, so ratios hold on a busy
machine; seconds of different runs do not compare.
"""
