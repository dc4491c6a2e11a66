"""What the parts cost, measured here and now, beside what one would take instead and what the machine can do.

    limits        this machine's arithmetic, memory and ciphers, on one thread
    rounds        a step of local training, and clients that train alike
    release       from scores to masked words: clip, coins, packing, masks
    sums          the secure sum, beside Flower's
    cohort        rounds of thousands of clients
    accounting    epsilon of a new cohort, and the search for a clip
    rows          a measurement, and how it is written down

Both sides run in turn in one process on one thread, in seconds of the processor, so ratios hold on a busy
machine; seconds of different runs do not compare.
"""
