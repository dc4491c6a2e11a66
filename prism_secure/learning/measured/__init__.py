"""Measured rounds, the server's side: what it asks, what it concludes, how it trains towards that.

    directions       what to ask
    prior            what is guessed of the moments before anything is asked
    row_posterior    what answers say of them
    rows             how many rows of the basis to ask along
    schedule         public rules for clips, budget, learning rate and steps
    server_training  steps towards the posterior's mean

No value of a client is seen here but in opened sums. Quantising, clips and bits: `prism_privacy.measured`.
"""
