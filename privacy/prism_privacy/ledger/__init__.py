"""The signed, append-only record of what was spent. It keeps files and a signing key, and reads no data.

writer          charges, one signed line after the other; how a file is opened again after a kill
entry, line     what a line says; its canonical form, hash and signature
order           what may follow what
key             the writer's signing key
spent_table     the epsilons of a line, from accountant and budget
check           a ledger read from its first line to its last
composition     what several ledgers on the same owners' data cost together
attacker        what that leaves to the best membership-inference attack
disclosure      a ledger for readers who have it alone
"""

from prism_privacy.ledger.writer import Ledger, verify_ledger

__all__ = ["Ledger", "verify_ledger"]
