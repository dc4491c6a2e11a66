"""What a run costs: the plan before round 1, what each round spends, what many ledgers together tell.

Turns a configuration into releases and asks prism_privacy; reads no images, imports no torch.
"""
