"""From releases to epsilon: reads descriptions of releases, never data.

accountant       what has been spent, for each view and adjacency
participation    the same for each client, where clients miss rounds
budget, filters  limits that are checked before anything leaves; for parameters that adapt, too
calibration      the clip, flip or cohort that reaches an epsilon
events           releases of every kind, which add up through `events.compose`
renyi            a release's Rényi curve, and epsilon from a composed one
unclipped        randomized response without a clip, exactly
group_privacy    what k clients together get from one client's guarantee
kappa            the certified constants behind it
"""
