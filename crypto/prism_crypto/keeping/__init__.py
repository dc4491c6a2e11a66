"""What a client keeps on disk between sessions.

    identity           who is who: a client's signing key, and the roster that pins everybody's
    session_counter    the number of its last session, which only increases
    guarded_file       how these are written and read: 0600, whole or not at all

Whatever the package keeps in files goes through here, a policy too.
"""
