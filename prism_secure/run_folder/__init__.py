"""A run on disk: its folder, one record for each round, environment, history, export, enrolled clients.

It reads and writes files; it does not train and renders no pages.
"""
