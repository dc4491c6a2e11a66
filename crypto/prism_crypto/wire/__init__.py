"""What goes over the wire: messages, counts packed into words, real numbers coded as counts.

It turns values into bytes and back, without keys and without protocol state.
"""
