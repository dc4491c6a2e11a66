"""What a client does in a round, and what the server does with the sum: one file for each.

The round around it (charging, coins, randomized bits, the secure sum, files) is the same for all.

    behaviour   the interface, for a behaviour of one's own, too
    choice      which one a configuration names
    train       local steps on the scores of a mask
    measure     answers in few public directions; the server trains on what they tell
"""
