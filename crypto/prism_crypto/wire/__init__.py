"""What goes over the wire: values into bytes and back, without keys and without protocol state.

messages    the messages, and their one encoding
packing     bounded integers in 64-bit words that add without carries
codec       real numbers and weighted means as such integers
"""
