"""What a client keeps on disk between sessions: its identity and the number of the last one.

The only room that touches files.
"""
