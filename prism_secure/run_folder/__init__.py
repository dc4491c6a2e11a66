"""A run on disk: its folder, a record a round, the environment, its history, export, enrolled clients.

Reads and writes files; trains nothing and draws no page.
"""
