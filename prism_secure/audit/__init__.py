"""Looking for what is wrong with a run: its folder, its ledgers together, and what attackers could learn.

oracle       every epsilon once more, by other code than the accountant's
findings     what a check says, and how sure it is
evidence     what a run folder holds, read without changing it
checks       one question each
run_audit    all of them on one folder, the page and the JSON
measured_client  the client of measured rounds as a black box; measured_law is its definition by other code
one_run      a lower bound from canaries; played_rounds is a run with an auditor's own data
budget       what many ledgers of one data owner cost together
membership   the picture of who can be told apart, beside epsilon
"""
