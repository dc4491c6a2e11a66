"""What the parts cost, measured here and now, beside what one would take instead and what the machine can do.

    limits        this machine's arithmetic, on one thread
    rounds        a step of local training, and clients that train alike
    release       from scores to masked words: clip, coins, packing, masks
    cohort        rounds of hundreds and thousands of clients
    accounting    epsilon of a new cohort, and the search for a clip
    start         what a command takes before it works

Both sides run in turn in one process on one thread, in seconds of the processor, so ratios hold on a busy
machine; seconds of different runs do not compare. The secure sum's own are in `prism_crypto.bench`, and the
form in which all are written down.
"""
