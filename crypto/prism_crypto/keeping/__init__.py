"""What a client keeps on disk between sessions: its identity, and the number of its last session.

No other part of the package touches files.
"""
