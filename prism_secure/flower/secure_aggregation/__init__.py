"""The secure sum in any Flower app, on both sides, and how its messages travel.

    client           `@secure_sum(app)`: a client's function, whose reply does not leave
    process          the client process: a client's secrets and training, from first stage to last
    link, wire       how the process of each Flower message finds that one, and what they say to each other
    server           `SecureSum`: sessions over the nodes of a grid, and which node is which client
    grid             `SecureSumGrid`: the same for apps with a strategy
    terms            what is summed, said by both sides each by itself
    messages         the records that travel, and the hashes that bind a session to them
    blamed           who has broken the protocol, kept beside a run

It does not depend on recipes; what apps use, `prism_secure.flower` exports. A client's secrets are in the
client process alone, never in a Flower message or context.
"""
