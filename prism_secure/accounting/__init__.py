"""What a run costs: the plan before round 1, what each round spends, what many ledgers together tell.

It turns a configuration into releases and asks prism_privacy; it reads no images and imports no torch.
"""
