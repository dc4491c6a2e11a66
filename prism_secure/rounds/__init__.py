"""One round after the other, in one process; Flower's apps drive the same parties across machines.

In the order in which a bit passes them:

    simulation       `run`: the loop, in an order that no kill can spoil
    components       a configuration's objects
    rehearsal        builds all of them and tries a round in small, before anything is charged
    broadcast        what clients are sent, and the digest that binds coins and sessions to it
    behaviours       what a client says, and what the server does with the sum: train, measure, one's own
    client           clips what is said, draws its bits, keeps them in its outbox
    server           theta, moved by an opened sum
    assembly         from an opened sum to the round's record, and its metrics
    evaluation       the deployed mask on held-out images
    arrays           files of what clients and the server keep between rounds
    workers, children, threads  clients and evaluations side by side, in processes and on one thread each
    moments, moment_sum  what clients know of their images; with a summed release, opened before round 1

Learning, privacy and the secure sum meet here, and only here.
"""
