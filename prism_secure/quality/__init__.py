"""How good the images are, beside held-out ones; nothing from here reaches a client.

    metrics         FID, KID, inception score, recall, coverage and their kin, from features
    networks        what computes the features: built in, or one's own
    classifier      the small network that ships, and its weights
    inception_fid   FID's own network, from a file that the user has; `inception_blocks`: what it is made of
    utility         gen2real: a classifier trained on generated images alone, tried on real ones
    samples         grids of generated images, as PNG

Clients' images are looked at only where they are declared public: for copies, and for gen2real's ceiling.
"""
