"""What travels: messages, the packing of counts into words, the coding of reals as counts.

Bytes in, values out, and back; no keys and no protocol.
"""
