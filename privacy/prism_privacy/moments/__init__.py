"""One noisy release of feature moments: its sensitivity, its noise, and how it is stored.

    release             what is released, how far one record moves it, and its epsilon
    discrete_gaussian   exact integer noise, from coins
    noisy_sums          one client's release: sums of its features, and noise
    summed              one over all clients, each with a share of the noise
    noisy_moments       means and variances from noisy sums
    store               the one release, kept, so that nobody draws a second

It protects single records, not clients; `masks` protects these. It reads features, draws noise and
keeps a file; it sends nothing.
"""
