"""Measured rounds, the server's side: what it asks, what it concludes, how it trains towards that.

    directions       what to ask
    row_posterior    what answers along a basis say of the moments; `posterior`: answers of any kind
    schedule         public rules for clips, budget, learning rate and steps
    server_training  steps towards the posterior's mean

No value of a client is seen here but in opened sums. Quantising, clips and bits: `prism_privacy.measured`.
"""
