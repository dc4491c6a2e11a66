"""Looking for what is wrong with a run: its folder, its ledgers together, and what attackers could learn.

oracle       every epsilon once more, by other code than the accountant's
findings     what a check says, and how sure it is
evidence     what a run folder holds, read without changing it
checks       one question each
run_audit    all of them on one folder, the page and the JSON
budget       what many ledgers of one data owner cost together
membership   the picture of who can be told apart, beside epsilon
"""
