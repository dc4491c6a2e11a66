"""The mechanism for mask bits: from a probability for each coordinate to bits that may leave.

    clipping             p held within the clip around the public point, in integers
    randomized_response  the box [f, 1 - f] that p lies in, and its undoing on opened counts (`debias`)
    coins                a client's secret, a round's stream of it, and `release_bits`, which draws the bits
    outbox               the bits on disk before they are sent, and sent again after a kill
    release              what the accountant is told: flip, clip, cohort, and the radii they give
    fixed_point          probabilities as multiples of 2^-24

It draws coins, and keeps secrets and bits in files; what a release costs is for `accounting` to say.
"""
