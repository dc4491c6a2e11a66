"""What a run costs: the plan before round 1, and what each round spends.

    plan             rounds and what they cost at most
    record_release, measured    what is released: moments before round 1, or answers in each round
    spending         charges a round: the accountant, then a line of the ledger
    largest          the account of the client that has spent most, where clients miss rounds
    epsilons         a client's four epsilons and an image's, as records, cards and pages have them
    clip_rules       how clips of measured rounds change
    signed           why a signed epsilon is infinite

It turns a configuration into releases and asks prism_privacy; it reads no images and imports no torch. One
part meets data: `record_release` draws the noise of a client's release on the features that it is given, and
keeps `release.id` where runs share a store.
"""
